"""Run a service as users do, and crash it at a step.

    python -m tests.faults.injection.run_until_crash SERVICE COUNT MARK CRASH_POINT BUG

The process kills itself when it reaches the crash point ("" for none) for the COUNTth time, and
creates the file MARK first. BUG is planted before the start ("" for none).
"""

import functools
import inspect
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from tests.faults.injection import targets
from tests.faults.injection.crash_points import CRASH_POINTS, When
from tests.faults.injection.planted_bugs import PLANTED_BUGS
from tests.faults.injection.targets import Function


def main(service: str, count: str, mark: str, crash_point: str, bug: str) -> None:
    """Plant the bug, wrap the target of the crash point, and become the service."""
    if bug:
        PLANTED_BUGS[bug].plant()
    if crash_point:
        point = CRASH_POINTS[crash_point]
        crash = _Crash(int(count), Path(mark))
        targets.replace(point.target, lambda function: _crashing(function, point.when, crash))
    sys.argv = [service]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


class _Crash:
    """Kills the process (`kill -9`) at the given call, and creates the mark first."""

    def __init__(self, call: int, mark: Path) -> None:
        self._calls_left = call
        self._mark = mark

    def count(self) -> None:
        self._calls_left -= 1
        if self._calls_left == 0:
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _crashing(function: Function, when: When, crash: _Crash) -> Function:
    if not inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if when is When.BEFORE:
                crash.count()
            result = function(*args, **kwargs)
            if when is When.AFTER:
                crash.count()
            return result

        return call

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        if when is When.BEFORE:
            crash.count()
        result = await function(*args, **kwargs)
        if when is When.AFTER:
            crash.count()
        return result

    return call_async


if __name__ == "__main__":
    main(*sys.argv[1:])
