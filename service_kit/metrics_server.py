"""A service's own `/metrics` page, for Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from service_kit.grpc_server import PortUnavailable


@contextmanager
def serving_metrics(host: str, port: int) -> Iterator[None]:
    """Serve this process's metrics over HTTP inside the block, from a thread; port 0: not at all.

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
