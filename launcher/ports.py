"""TCP ports: which are free, and which variable chooses another one."""

import errno
import random
import socket

from launcher.errors import LauncherError

_LOOPBACK = "127.0.0.1"
_HIGHEST = 65535
_RANDOM_PORTS = range(20_000, 32_000)


def connect_host(bind_host: str) -> str:
    """The host at which this machine reaches a server that listens on `bind_host`."""
    all_interfaces = ("0.0.0.0", "::")  # noqa: S104 # nosec B104: compared with, not bound to
    return "localhost" if bind_host in (_LOOPBACK, *all_interfaces) else bind_host


def is_port_number(text: str) -> bool:
    """Whether `text` is a port number that a server can listen on."""
    return text.isascii() and text.isdigit() and 0 < int(text) <= _HIGHEST


def free_port() -> int:
    """A free port of the loopback interface.

    Below the system's ephemeral ports (from 32768 on Linux), so that it is still free when a server
    that was killed starts again.
    """
    candidates = random.sample(_RANDOM_PORTS, k=len(_RANDOM_PORTS))
    port = next((port for port in candidates if is_free(port)), None)
    if port is None:
        first, last = _RANDOM_PORTS[0], _RANDOM_PORTS[-1]
        raise LauncherError(f"no port from {first} to {last} is free")
    return port


def is_free(port: int, host: str = _LOOPBACK) -> bool:
    """Whether a server could listen on `port` now."""
    try:
        _bind(host, port)
    except OSError:
        return False
    return True


def require_free(port: int, host: str, variable: str) -> None:
    """Raise a LauncherError that names `variable` unless a server can listen on `host:port`."""
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LauncherError(
                f"port {port} is in use by another program: stop it, or set {variable}"
            ) from error
        raise LauncherError(
            f"cannot listen on {host} port {port} ({variable}): {error.strerror}"
        ) from error


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As the services do, past connections that linger in TIME_WAIT; but not SO_REUSEPORT,
        # with which two gRPC servers would share a port without an error.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
