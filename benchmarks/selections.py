"""What a run does: the selections that can be asked for, and how long each part takes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import checks, growth, limits, measure, reads, shop
from benchmarks.measure import Measurement
from benchmarks.progress import Progress
from benchmarks.results import Coalescing, Results
from benchmarks.shop import Shop

OPEN_SHARE = 0.7
"""Open loop offers so much of what the same number of clients got through in closed loop."""
FLOOD_SHARE = 0.1
"""Beside a flood of log-ins there are so many reads, and orders, of what the system can settle."""
COALESCING_CLIENTS = 64
COALESCED_SHARE = 0.5
UNCOALESCED_SHARE = 0.1
"""So much of a measurement's usual time does a turn take, with coalescing and without."""


@dataclass(frozen=True)
class Plan:
    """Seconds of each measurement, and which there are."""

    name: str
    seconds: float
    clients: Sequence[int]
    open_for: Sequence[int]
    coalescing_turns: int
    part_seconds: float
    """For limits and reads."""
    flood_seconds: float


STANDARD = Plan("standard", 10, (1, 16, 64, 256), (1, 16, 64, 256), 4, 4, 8)
QUICK = Plan("quick", 3, (1, 16, 64, 256), (64,), 0, 1, 2)
SMOKE = Plan("smoke", 1, (16,), (16,), 1, 0.2, 0.3)


def speed(plan: Plan, folder: Path, progress: Progress) -> Results:
    """Orders, coalescing, limits and reads on a system of their own."""
    results = Results(plan.name)
    progress.step("starting a system")
    # The smoke run does everything on one system, growth included.
    settings = _retention(growth.TINY) if plan is SMOKE else {}
    with shop.opened(folder / "system", **settings) as here:
        measure.warm_up(here, 64, plan.seconds / 3)
        results.orders = list(_orders(here, plan, progress))
        progress.step("the parts by themselves")
        results.limits = limits.measure(here, plan.part_seconds)
        progress.step("reads")
        results.reads = reads.measure(here, plan.part_seconds)
        progress.step("log-ins")
        best = max(one.settled_per_second for one in results.orders)
        results.flood = reads.flood(here, max(10.0, FLOOD_SHARE * best), plan.flood_seconds)
        if plan.coalescing_turns:
            progress.step("starting a system with BATCH_MAX_ITEMS=1")
            with _without_coalescing(plan, folder, here) as off:
                results.coalescing = _coalescing(here, off, plan, progress)
                results.complaints += asyncio.run(checks.complaints(off))
        if plan is SMOKE:
            results.growth = growth.run(here, here, growth.TINY, progress.tell)
        progress.step("checking orders, stock and ledger")
        results.complaints += asyncio.run(checks.complaints(here))
    return results


def grow(sizes: growth.Sizes, folder: Path, progress: Progress) -> Results:
    """A system that grows beside one that stays empty."""
    results = Results("growth")
    progress.step("starting two systems")
    with (
        shop.opened(folder / "empty") as empty,
        shop.opened(folder / "grown", **_retention(sizes)) as grown,
    ):
        progress.step("growing")
        results.growth = growth.run(empty, grown, sizes, progress.tell)
        progress.step("checking orders, stock and ledger")
        for each in (empty, grown):
            results.complaints += asyncio.run(checks.complaints(each))
    return results


def _retention(sizes: growth.Sizes) -> dict[str, str]:
    return {"OUTBOX_RETENTION_SECONDS": str(sizes.retention_seconds)}


def _orders(here: Shop, plan: Plan, progress: Progress) -> Iterator[Measurement]:
    for clients in plan.clients:
        progress.step(f"closed loop, {clients} clients")
        measure.warm_up(here, clients, plan.seconds / 3)
        closed = measure.closed(here, clients, plan.seconds)
        progress.tell_orders(closed)
        yield closed
        if clients in plan.open_for:
            rate = max(1.0, OPEN_SHARE * closed.accepted_per_second)
            progress.step(f"open loop, {rate:.0f} a second")
            opened = measure.open_loop(here, clients, rate, plan.seconds)
            progress.tell_orders(opened)
            yield opened


@contextmanager
def _without_coalescing(plan: Plan, folder: Path, here: Shop) -> Iterator[Shop]:
    """A second system that handles each order by itself; the smoke run does with one system."""
    if plan is SMOKE:
        yield here
        return
    with shop.opened(folder / "uncoalesced", BATCH_MAX_ITEMS="1") as off:
        measure.warm_up(off, COALESCING_CLIENTS)
        yield off


def _coalescing(on: Shop, off: Shop, plan: Plan, progress: Progress) -> Coalescing:
    found = Coalescing([], [])
    for turn in range(plan.coalescing_turns):
        progress.step(f"coalescing off and on: {turn + 1} of {plan.coalescing_turns}")
        for which in ("on", "off") if turn % 2 else ("off", "on"):
            # What is accepted in a second without coalescing takes many to settle.
            share = COALESCED_SHARE if which == "on" else UNCOALESCED_SHARE
            one = measure.closed(
                on if which == "on" else off, COALESCING_CLIENTS, plan.seconds * share
            )
            (found.on if which == "on" else found.off).append(one)
    return found


def steps_of(plan: Plan) -> int:
    """How many steps `speed` takes."""
    return 6 + len(plan.clients) + len(plan.open_for) + plan.coalescing_turns
