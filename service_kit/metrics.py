"""Prometheus metrics that every service has; children are cached because `.labels()` is slow."""

from collections.abc import Callable

from prometheus_client import Counter, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RPC_SECONDS = Histogram(
    "rpc_server_seconds", "Time to answer a gRPC call", ("method",), buckets=_BUCKETS
)
_RPC_FAILURES = Counter(
    "rpc_server_failures", "gRPC calls answered with an error", ("method", "code")
)


def rpc(method: str) -> tuple[Histogram, Callable[[str], None]]:
    """The duration histogram of a gRPC method, and a function that counts a failure's code."""

    def count_failure(code: str) -> None:
        _RPC_FAILURES.labels(method, code).inc()

    return _RPC_SECONDS.labels(method), count_failure
