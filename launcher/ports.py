"""TCP ports: which are free, and whose variable moves a taken one."""

import errno
import random
import socket

from launcher.problem import Problem

_LOOPBACK = "127.0.0.1"
_HIGHEST = 65535
_OWN_RANGE = range(20_000, 32_000)


def local_address(bind_host: str) -> str:
    """Where this machine reaches a server that listens on `bind_host`."""
    everywhere = ("0.0.0.0", "::")  # noqa: S104 # nosec B104: compared with, not bound to
    return "localhost" if bind_host in (_LOOPBACK, *everywhere) else bind_host


def is_port(text: str) -> bool:
    """Whether `text` is the number of a port that a server can have."""
    return text.isascii() and text.isdigit() and 0 < int(text) <= _HIGHEST


def free_port() -> int:
    """A port of the loopback interface that nothing uses now.

    Below those that the system hands out by itself (from 32768 on Linux), so that it is still free
    when a server which was killed comes back to it.
    """
    candidates = random.sample(_OWN_RANGE, k=len(_OWN_RANGE))
    port = next((port for port in candidates if is_free(port)), None)
    if port is None:
        raise Problem(f"no port from {_OWN_RANGE.start} to {_OWN_RANGE.stop - 1} is free")
    return port


def is_free(port: int, host: str = _LOOPBACK) -> bool:
    """Whether a server could listen on `port` now."""
    try:
        _bind(host, port)
    except OSError:
        return False
    return True


def require_free(port: int, host: str, variable: str) -> None:
    """Raise a Problem that names `variable` unless a server can listen on `host` and `port`."""
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Problem(
                f"port {port} is in use by another program: stop it, or set {variable}"
            ) from error
        raise Problem(
            f"cannot listen on {host} port {port} ({variable}): {error.strerror}"
        ) from error


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As our servers do, past connections that linger in TIME_WAIT; but not SO_REUSEPORT,
        # with which two gRPC servers would share a port without a word.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
