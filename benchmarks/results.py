"""What a run found, and its JSON."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks import load
from benchmarks.growth import Growth
from benchmarks.limits import Limit
from benchmarks.measure import Measurement
from benchmarks.reads import Flood, Read


@dataclass(frozen=True)
class Coalescing:
    """The same load in turns with requests travelling together, and each by itself."""

    on: list[Measurement]
    off: list[Measurement]


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "closed_loop_generator": "wrk" if load.has_wrk() else "our own",
    }


@dataclass
class Results:
    """The parts of a run that were done; it is void if there are complaints."""

    selection: str
    began: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=_machine)
    orders: list[Measurement] = field(default_factory=list)
    coalescing: Coalescing | None = None
    limits: list[Limit] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    flood: Flood | None = None
    growth: Growth | None = None
    complaints: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=1) + "\n")
