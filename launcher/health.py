"""Waiting until a started program is of use."""

import time
from collections.abc import Callable
from urllib.error import URLError
from urllib.request import urlopen

from launcher.layout import Layout
from launcher.logs import last_lines
from launcher.problem import Problem
from launcher.supervision import Supervisor

Check = Callable[[], bool]
"""Whether a program is of use now; answers within seconds and never raises."""

_MOST_TRIES = 3
_LOG_LINES = 15
_PAUSE_SECONDS = 0.1
_DEAD = ("BACKOFF", "EXITED", "FATAL")


def http_ready(address: str) -> bool:
    """Whether `GET /readyz` at `address` answers 200."""
    try:
        with urlopen(f"http://{address}/readyz", timeout=3) as answer:  # nosec B310
            return bool(answer.status == 200)  # noqa: PLR2004
    except (URLError, OSError):
        return False


def wait(supervisor: Supervisor, layout: Layout, name: str, check: Check, seconds: float) -> None:
    """Return once program `name` runs and passes its `check`.

    A Problem with its last log lines if it takes longer than `seconds`, or dies time and again.
    """
    deadline = time.monotonic() + seconds
    tries = set[int]()
    while True:
        state = supervisor.state(name)
        if state.state == "RUNNING" and check():
            return
        if state.state in _DEAD:
            tries.add(state.started)
        if len(tries) >= _MOST_TRIES:
            raise _failure(layout, name, f"stopped {len(tries)} times while starting")
        if time.monotonic() > deadline:
            raise _failure(layout, name, f"is not healthy after {seconds:.0f} s")
        time.sleep(_PAUSE_SECONDS)


def _failure(layout: Layout, name: str, what: str) -> Problem:
    path = layout.log_file(name)
    lines = last_lines(path, _LOG_LINES)
    told = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
    return Problem(f"{name} {what}; the end of {path}:\n{told}")
