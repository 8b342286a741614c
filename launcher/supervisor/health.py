"""Waiting until a started program is healthy."""

import time
from collections.abc import Callable
from http import HTTPStatus
from urllib.error import URLError
from urllib.request import urlopen

from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.supervisor.log_files import last_lines
from launcher.supervisor.supervisord import Supervisor

HealthCheck = Callable[[], bool]
"""Whether a program is healthy now; returns within seconds and never raises."""

_MAX_ATTEMPTS = 3
_LOG_LINES = 15
_PAUSE_SECONDS = 0.1
_TIMEOUT_SECONDS = 3
_STOPPED_STATES = ("BACKOFF", "EXITED", "FATAL")


def http_ready(address: str) -> bool:
    """Whether `GET /readyz` at `address` returns 200."""
    try:
        url = f"http://{address}/readyz"
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response:  # nosec B310
            return bool(response.status == HTTPStatus.OK)
    except (URLError, OSError):
        return False


def wait_until_healthy(
    supervisor: Supervisor, layout: Layout, name: str, is_healthy: HealthCheck, seconds: float
) -> None:
    """Return once program `name` runs and passes its check.

    A LauncherError with its last log lines if it takes over `seconds`, or stops several times.
    """
    deadline = time.monotonic() + seconds
    failed_attempts = set[int]()
    while True:
        state = supervisor.state(name)
        if state.state == "RUNNING" and is_healthy():
            return
        if state.state in _STOPPED_STATES:
            failed_attempts.add(state.started)
        if len(failed_attempts) >= _MAX_ATTEMPTS:
            raise _error(layout, name, f"stopped {len(failed_attempts)} times while starting")
        if time.monotonic() > deadline:
            raise _error(layout, name, f"is not healthy after {seconds:.0f} s")
        time.sleep(_PAUSE_SECONDS)


def _error(layout: Layout, name: str, reason: str) -> LauncherError:
    path = layout.log_file(name)
    lines = last_lines(path, _LOG_LINES)
    excerpt = "\n".join(f"  {line}" for line in lines) or "  (empty)"
    return LauncherError(f"{name} {reason}; the end of {path}:\n{excerpt}")
