"""Processor time and memory of the processes of a system, by program."""

import re
from collections.abc import Mapping
from pathlib import Path

import psutil

MIB = 1024 * 1024


def seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds of each program since it started, with all its children, ended ones too."""
    spent = dict.fromkeys(pids, 0.0)
    for name, processes in _trees(pids).items():
        for process in processes:
            times = process.info["cpu_times"]
            spent[name] += times.user + times.system + times.children_user + times.children_system
    return spent


def memory_mib(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of each program's own process, in MiB."""
    return {name: psutil.Process(pid).memory_info().rss / MIB for name, pid in pids.items()}


def most_mib(pid: int) -> float:
    """The most resident memory that a process has had, in MiB, as the kernel keeps it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return float(kibibytes) / 1024


def machine_seconds() -> float:
    """Processor seconds that anything on this machine has used since it was booted."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def spent_by_program(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Seconds between two readings of `seconds`; since its start for what was started between."""
    return {name: used - before.get(name, 0.0) for name, used in after.items()}


def _trees(pids: Mapping[str, int]) -> dict[str, list[psutil.Process]]:
    """The processes below each program's, itself included."""
    names = {pid: name for name, pid in pids.items()}
    everyone = {p.pid: p for p in psutil.process_iter(["ppid", "cpu_times"])}
    trees: dict[str, list[psutil.Process]] = {name: [] for name in pids}
    for process in everyone.values():
        ancestor = process.pid
        while ancestor not in names and ancestor in everyone:
            ancestor = everyone[ancestor].info["ppid"]
        if ancestor in names and process.info["cpu_times"]:
            trees[names[ancestor]].append(process)
    return trees
