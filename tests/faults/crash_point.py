"""Runs a service as users do, but kills it at a step: `python -m tests.faults.crash_point`.

Arguments: service, call at which to die (1 is the first), file to write when dying, step, and a
bug to plant ("" for none). The product has no hooks: its functions are wrapped from here.
"""

import functools
import importlib
import inspect
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import bugs
from tests.faults.points import POINTS, Point, When


def main(service: str, count: str, mark: str, step: str, bug: str) -> None:
    """Plant the bug, wrap the step, and become the service."""
    if bug:
        bugs.plant(bug)
    if step:
        _wrap(POINTS[step], _Fuse(int(count), Path(mark)))
    sys.argv = [service]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


class _Fuse:
    """Ends the process, as `kill -9` does, when it is lit for the n-th time."""

    def __init__(self, count: int, mark: Path) -> None:
        self._left = count
        self._mark = mark

    def burn(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _wrap(point: Point, fuse: _Fuse) -> None:
    owner, name = _find(point.target)
    setattr(owner, name, _dying(getattr(owner, name), point.when, fuse))


def _find(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for attribute in outer:
        owner = getattr(owner, attribute)
    return owner, name


def _dying(function: Callable[..., Any], when: When, fuse: _Fuse) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if when is When.BEFORE:
                fuse.burn()
            result = function(*args, **kwargs)
            if when is When.AFTER:
                fuse.burn()
            return result

        return call

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if when is When.BEFORE:
            fuse.burn()
        result = await function(*args, **kwargs)
        if when is When.AFTER:
            fuse.burn()
        return result

    return awaited


if __name__ == "__main__":
    main(*sys.argv[1:])
