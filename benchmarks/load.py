"""Load on an HTTP server: closed loop by wrk, open loop by our own generator."""

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SCRIPT = Path(__file__).with_name("wrk.lua")
_CHECKOUT = Path(__file__).parents[1]
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of one measurement."""

    answered: int
    refused: int
    """Answered with a status from 400 on."""
    broken: int
    """Without an answer: connection failed or lost."""
    seconds: float
    milliseconds: dict[str, float]
    """Latency: p50, p90, p99, p99.9, max; in open loop counted from when a request was due."""
    cpu_seconds: float
    """Of the load generator itself."""
    cut_off: int
    """So many requests at most were under way at the end and may have been served, uncounted."""

    @property
    def good(self) -> int:
        """Requests answered with success."""
        return self.answered - self.refused

    @property
    def per_second(self) -> float:
        """Requests answered with success, a second."""
        return self.good / self.seconds

    @property
    def unknown(self) -> int:
        """Requests that may have been served although no good answer is known."""
        return self.refused + self.broken + self.cut_off

    @property
    def errors(self) -> int:
        """Requests that got no answer or no good one."""
        return self.refused + self.broken


@cache
def has_wrk() -> bool:
    """Whether wrk is installed; without it our own generator does the closed loop, too."""
    return shutil.which("wrk") is not None


def closed(address: str, requests: Path, clients: int, seconds: float) -> Outcome:
    """`clients` that each send their next request when the last one is answered."""
    if seconds < 1 or not has_wrk():  # wrk counts in whole seconds
        return own(address, requests, seconds, clients=clients)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{round(seconds)}s", "--timeout", "60s"]
    command += ["--script", str(_SCRIPT), f"http://{address}/", "--", str(requests)]
    before = _cpu_of_children()
    done = _run(command, seconds)
    result = json.loads(done.splitlines()[-1])
    return Outcome(**result, cpu_seconds=_cpu_of_children() - before, cut_off=clients)


def open_loop(address: str, requests: Path, rate: float, seconds: float) -> Outcome:
    """Requests that start `rate` times a second, at random moments, whatever the server does."""
    return own(address, requests, seconds, rate=rate)


def own(
    address: str, requests: Path, seconds: float, *, rate: float = 0.0, clients: int = 0
) -> Outcome:
    """A load by our own generator: open with a `rate`, closed with `clients`."""
    command = [sys.executable, "-m", "benchmarks.generator", str(requests), address]
    command += ["--seconds", str(seconds), "--rate", str(rate), "--clients", str(clients)]
    result = json.loads(_run(command, seconds))
    result.pop("outcomes")
    return Outcome(**result, cut_off=0)


def _run(command: list[str], seconds: float) -> str:
    return subprocess.run(
        command,
        cwd=_CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + _GRACE_SECONDS,
    ).stdout


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
