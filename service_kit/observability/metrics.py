"""Prometheus metrics of every service, and the page that serves them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram, start_http_server

from service_kit.errors import PortUnavailable

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RPC_SECONDS = Histogram(
    "rpc_server_seconds", "Duration of a gRPC call", ("method",), buckets=_BUCKETS
)
_RPC_FAILURES = Counter(
    "rpc_server_failures", "gRPC calls that returned an error", ("method", "code")
)


def rpc_metrics(method: str) -> tuple[Histogram, Callable[[str], None]]:
    """The duration histogram of a gRPC method, and a function that counts a failure's code.

    The histogram's child is looked up once for each method, because `.labels()` is slow.
    """

    def count_failure(code: str) -> None:
        _RPC_FAILURES.labels(method, code).inc()

    return _RPC_SECONDS.labels(method), count_failure


@contextmanager
def serve_metrics(host: str, port: int) -> Iterator[None]:
    """Serve this process's metrics over HTTP inside the block, in a thread; not at all on port 0.

    Raises PortUnavailable.
    """
    if port == 0:
        yield
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise PortUnavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
