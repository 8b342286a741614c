"""The processes of a run directory, supervised or not, found by a mark in their environment."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

from launcher.services import POSTGRES, START_ORDER

RUN_DIR_MARK = "LAUNCHER_RUN_DIR"
"""The variable that supervisord and all its programs have: the run directory they belong to."""

_GRACE_SECONDS = 15
# supervisord stops its programs one by one.
_SUPERVISORD_GRACE_SECONDS = 120


def find(run_dir: Path) -> list[psutil.Process]:
    """Every running process that was started for `run_dir`."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _environment(process).get(RUN_DIR_MARK) == str(run_dir)
    ]


def stop_all(run_dir: Path) -> list[str]:
    """Stop what `find` finds: supervisord first, then the programs in reverse start order.

    Returns the names of the programs that were stopped.
    """
    found = find(run_dir)
    names = {process: _environment(process).get("SUPERVISOR_PROCESS_NAME", "") for process in found}
    order = ("", *reversed(START_ORDER))
    for name in order:
        _stop_program([process for process in found if names[process] == name], name)
    return [name or "supervisord" for name in order if name in names.values()]


def _stop_program(processes: Sequence[psutil.Process], name: str) -> None:
    """Ask the processes of one program to stop, and kill those that do not."""
    members = set(processes)
    for process in processes:
        # A program's children end with it. SIGINT is PostgreSQL's fast shutdown.
        if _parent(process) not in members:
            _signal(process, signal.SIGINT if name == POSTGRES else signal.SIGTERM)
    grace = _GRACE_SECONDS if name else _SUPERVISORD_GRACE_SECONDS
    _, running = psutil.wait_procs(processes, timeout=grace)
    for process in running:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(running, timeout=_GRACE_SECONDS)


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
    """The environment it was started with; empty if it has ended or belongs to another user."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
