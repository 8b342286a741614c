"""The same load with requests that travel together, and with each request on its own."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.speed import orders
from benchmarks.speed.orders import Measurement
from benchmarks.system.shop import Shop

CLIENTS = 64
_ON_SHARE = 0.5
_OFF_SHARE = 0.1
"""Of the usual seconds: what is accepted in one second without coalescing settles in many."""


@dataclass(frozen=True)
class Coalescing:
    """Measurements in pairs, with BATCH_MAX_ITEMS as usual and with 1."""

    on: list[Measurement]
    off: list[Measurement]


def measure(
    on: Shop, off: Shop, pairs: int, seconds: float, step: Callable[[str], None]
) -> Coalescing:
    """Measure both shops alternately, `pairs` times; `step` announces each pair."""
    found = Coalescing([], [])
    for pair in range(pairs):
        step(f"coalescing off and on: {pair + 1} of {pairs}")
        turns = [(off, found.off, _OFF_SHARE), (on, found.on, _ON_SHARE)]
        for shop, measurements, share in reversed(turns) if pair % 2 else turns:
            measurements.append(orders.measure(shop, CLIENTS, seconds * share))
    return found
