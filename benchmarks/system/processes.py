"""Processor time and memory of a system's processes, by program."""

import os
import re
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 1024 * 1024


@dataclass(frozen=True)
class CpuUsage:
    """Processor time that was used in some interval."""

    seconds: dict[str, float]
    """By program."""
    others_percent: float
    """Share of the machine that processes used which are no part of the measurement."""


class CpuMeter:
    """Measures processor time from its creation on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._started = time.monotonic()
        self._machine = _machine_seconds()
        self._own = _own_seconds()
        self._programs = _program_seconds(pids)

    def read(self, pids: Mapping[str, int]) -> CpuUsage:
        """The usage so far; of a program that started in between, since its start."""
        programs = {
            name: used - self._programs.get(name, 0.0)
            for name, used in _program_seconds(pids).items()
        }
        own = _own_seconds() - self._own
        others = _machine_seconds() - self._machine - own - sum(programs.values())
        available = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        return CpuUsage(programs, max(0.0, 100 * others / available))


def memory_mib(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of each program's own process, in MiB."""
    return {name: psutil.Process(pid).memory_info().rss / _MIB for name, pid in pids.items()}


def peak_memory_mib(pid: int) -> float:
    """The peak resident memory of a process since its start, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return float(kibibytes) / 1024


def _machine_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _own_seconds() -> float:
    """Of the benchmark itself and its load generators."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _program_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Of each program since its start, with all its children, also those that have ended.

    A process counts for its nearest ancestor among `pids`.
    """
    names = {pid: name for name, pid in pids.items()}
    processes = {each.pid: each for each in psutil.process_iter(["ppid", "cpu_times"])}
    seconds = dict.fromkeys(pids, 0.0)
    for process in processes.values():
        ancestor = process.pid
        while ancestor not in names and ancestor in processes:
            ancestor = processes[ancestor].info["ppid"]
        times = process.info["cpu_times"]
        if ancestor in names and times:
            seconds[names[ancestor]] += (
                times.user + times.system + times.children_user + times.children_system
            )
    return seconds
