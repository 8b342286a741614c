"""Processes of ours that nobody supervises any more, found by a mark in their environment."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

from launcher.layout import POSTGRES, START_ORDER

MARKER = "LAUNCHER_RUN_DIR"
"""The variable that supervisord and all it starts carry: the run directory that they serve."""

_GRACE_SECONDS = 15
# supervisord itself ends its programs one by one.
_SUPERVISORD_GRACE_SECONDS = 120


def find(run_dir: Path) -> list[psutil.Process]:
    """Every process that was started for `run_dir` and still runs."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _environment(process).get(MARKER) == str(run_dir)
    ]


def end(run_dir: Path) -> list[str]:
    """End what `find` finds: supervisord first, then the programs in reverse start order.

    Returns the names of the programs whose processes were ended.
    """
    found = find(run_dir)
    names = {process: _environment(process).get("SUPERVISOR_PROCESS_NAME", "") for process in found}
    order = ("", *reversed(START_ORDER))
    for name in order:
        _end_together([process for process in found if names[process] == name], name)
    return [name or "supervisord" for name in order if name in names.values()]


def _end_together(processes: Sequence[psutil.Process], name: str) -> None:
    """Ask the processes of one program to stop, and kill those that do not."""
    members = set(processes)
    for process in processes:
        # A program's helpers end with it; PostgreSQL's fast shutdown is SIGINT.
        if _parent(process) not in members:
            _signal(process, signal.SIGINT if name == POSTGRES else signal.SIGTERM)
    grace = _GRACE_SECONDS if name else _SUPERVISORD_GRACE_SECONDS
    _, stubborn = psutil.wait_procs(processes, timeout=grace)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=_GRACE_SECONDS)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _parent(process: psutil.Process) -> psutil.Process | None:
    try:
        return process.parent()
    except psutil.NoSuchProcess:
        return None


def _environment(process: psutil.Process) -> dict[str, str]:
    """The environment it was started with; empty if it is gone or not ours to read."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
