"""The results of a run, and their JSON file."""

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from benchmarks.growth.run import Growth
from benchmarks.load import loops
from benchmarks.speed.coalescing import Coalescing
from benchmarks.speed.components import Component
from benchmarks.speed.logins import LoginFlood
from benchmarks.speed.orders import Measurement
from benchmarks.speed.reads import Read

PROGRAMS = (
    "api_gateway",
    "user_service",
    "order_service",
    "inventory_service",
    "producer_service",
    "consumer_service",
    "postgres",
    "rabbitmq",
    "supervisord",
)
"""All programs of a system, in the order of a request's path."""

NOISY_PERCENT = 10
"""If other processes used more of the machine, the figures are not reliable."""


@dataclass(frozen=True)
class Machine:
    """The machine of a run; the load generator shares it with the system."""

    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    memory_gib: int = field(default_factory=lambda: round(psutil.virtual_memory().total / 2**30))
    python: str = field(default_factory=platform.python_version)
    closed_loop_generator: str = field(
        default_factory=lambda: "wrk" if loops.has_wrk() else "built-in"
    )


@dataclass
class Results:
    """What a run measured; it is void if there are failures."""

    scenario: str
    started: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    seconds: float = 0.0
    machine: Machine = field(default_factory=Machine)
    orders: list[Measurement] = field(default_factory=list)
    coalescing: Coalescing | None = None
    components: list[Component] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    logins: LoginFlood | None = None
    growth: Growth | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def best_settled_per_second(self) -> float:
        """In a closed loop, with the number of clients for which it is highest."""
        closed = (each.settled_per_second for each in self.orders if each.loop == "closed")
        return max(closed, default=0.0)

    @property
    def others_percent(self) -> float:
        """Share of the machine that other processes used: the highest of all measurements."""
        measurements = [*self.orders]
        if self.coalescing:
            measurements += self.coalescing.on + self.coalescing.off
        for step in self.growth.steps if self.growth else ():
            measurements += step.grown + step.empty
        return max((each.others_percent for each in measurements), default=0.0)

    @property
    def is_noisy(self) -> bool:
        """Whether other processes used so much of the machine that the figures are unreliable."""
        return self.others_percent > NOISY_PERCENT

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read_results(path: Path) -> Results:
    """The results in a JSON file."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
