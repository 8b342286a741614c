"""Load in a closed loop, by wrk, or in an open loop, by our own generator."""

import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec

_SCRIPT = Path(__file__).with_name("wrk.lua")
_CHECKOUT = Path(__file__).parents[2]
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class LoadResult:
    """What became of the requests of a measurement."""

    responses: int
    error_responses: int
    """Responses with a status of 400 or above."""
    failed: int
    """Requests without a response: connection failed or lost, or timed out."""
    seconds: float
    milliseconds: dict[str, float]
    """Latency: p50, p90, p99, p99.9, max; in an open loop from when a request was due."""
    cpu_seconds: float = 0.0
    """Of the load generator itself."""
    in_flight: int = 0
    """At most this many requests were in flight at the end, uncounted; each may be served."""

    @property
    def succeeded(self) -> int:
        """Requests with a successful response."""
        return self.responses - self.error_responses

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return self.succeeded / self.seconds

    @property
    def errors(self) -> int:
        """Requests that failed or got an error response."""
        return self.error_responses + self.failed

    @property
    def unconfirmed(self) -> int:
        """Requests that may have been served although no successful response came."""
        return self.errors + self.in_flight


@cache
def has_wrk() -> bool:
    """Whether wrk is installed; without it our own generator also drives the closed loop."""
    return shutil.which("wrk") is not None


def closed_loop(address: str, requests: Path, clients: int, seconds: float) -> LoadResult:
    """`clients` that each send their next request when the last response has arrived."""
    if seconds < 1 or not has_wrk():  # wrk counts in whole seconds
        return own_closed_loop(address, requests, clients, seconds)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{round(seconds)}s", "--timeout", "60s"]
    command += ["--script", str(_SCRIPT), f"http://{address}/", "--", str(requests)]
    before = _children_cpu_seconds()
    result = _run(command, seconds)
    cpu_seconds = _children_cpu_seconds() - before
    return replace(result, cpu_seconds=cpu_seconds, in_flight=clients)


def own_closed_loop(address: str, requests: Path, clients: int, seconds: float) -> LoadResult:
    """The same by our own generator."""
    return _generate(address, requests, seconds, "--clients", clients)


def open_loop(address: str, requests: Path, rate: float, seconds: float) -> LoadResult:
    """Requests that start `rate` times per second, at random moments, however the server does."""
    return _generate(address, requests, seconds, "--rate", rate)


def _generate(
    address: str, requests: Path, seconds: float, option: str, value: float
) -> LoadResult:
    command = [sys.executable, "-m", "benchmarks.load.generator", str(requests), address]
    return _run([*command, "--seconds", str(seconds), option, str(value)], seconds)


def _run(command: list[str], seconds: float) -> LoadResult:
    """Run a generator that prints its result as the last line, in JSON."""
    output = subprocess.run(
        command,
        cwd=_CHECKOUT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + _GRACE_SECONDS,
    ).stdout
    return msgspec.json.decode(output.splitlines()[-1], type=LoadResult)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
