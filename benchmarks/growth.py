"""What a system that has been used for long costs: beside an empty one, and by itself."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import history, measure, pages, plans, seed
from benchmarks.backlog import Backlog, drain
from benchmarks.endurance import Endurance, endure
from benchmarks.measure import Measurement
from benchmarks.pages import Page
from benchmarks.plans import Plan
from benchmarks.shop import Shop

CLIENTS = 64
PRODUCTS_SHARE = 10
"""One product in the catalogue for so many orders, but not fewer than the shop began with."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How far the shop is to grow, and how long each measurement takes."""

    stored_orders: Sequence[int]
    pairs: int
    seconds: float
    backlog: int
    endurance: int
    retention_seconds: int
    """The OUTBOX_RETENTION_SECONDS that the growing system runs with."""


FULL = Sizes((0, 10_000, 100_000, 300_000, 1_000_000), 5, 5, 100_000, 200_000, 60)
TINY = Sizes((500,), 1, 0.3, 300, 100, 5)


@dataclass(frozen=True)
class Step:
    """The grown system and the empty one, in turns."""

    stored: int
    products: int
    grown: list[Measurement]
    empty: list[Measurement]
    throughput_ratio: float
    """Median of the pairs: settled a second, grown against empty."""


@dataclass(frozen=True)
class Growth:
    """All that was found."""

    steps: list[Step]
    pages: list[Page]
    plans: list[Plan]
    backlog: Backlog
    endurance: Endurance


def run(empty: Shop, grown: Shop, sizes: Sizes, tell: Tell) -> Growth:
    """Let `grown` grow and measure it beside `empty`; both hold nothing but a catalogue."""
    steps = []
    for before, stored in zip((0, *sizes.stored_orders), sizes.stored_orders, strict=False):
        asyncio.run(_grow(grown, before, stored, tell))
        steps.append(_step(empty, grown, stored, sizes, tell))
    tell("pages at several depths, and plans")
    return Growth(
        steps,
        pages.measure(grown, sizes.seconds / 5),
        plans.check(grown, sizes.retention_seconds),
        drain(grown, sizes.backlog, tell),
        endure(grown, sizes.endurance, sizes.seconds, sizes.retention_seconds, tell),
    )


async def _grow(shop: Shop, before: int, stored: int, tell: Tell) -> None:
    products = max(shop.products, stored // PRODUCTS_SHARE)
    if products > shop.products:
        await seed.products(shop.system, shop.products + 1, products)
        shop.products = products
    if stored > before:
        await history.write(
            shop, before + 1, stored, lambda n: tell(f"writing past orders: {n:,} of {stored:,}")
        )
        shop.past = stored


def _step(empty: Shop, grown: Shop, stored: int, sizes: Sizes, tell: Tell) -> Step:
    found: dict[int, list[Measurement]] = {id(empty): [], id(grown): []}
    for shop in {id(empty): empty, id(grown): grown}.values():
        measure.warm_up(shop, CLIENTS, sizes.seconds)
    for pair in range(sizes.pairs):
        tell(f"{stored:,} orders stored, beside an empty system: {pair + 1} of {sizes.pairs}")
        for shop in (empty, grown) if pair % 2 else (grown, empty):
            found[id(shop)].append(measure.closed(shop, CLIENTS, sizes.seconds))
    many, none = found[id(grown)], found[id(empty)]
    ratios = [
        one.settled_per_second / max(1, other.settled_per_second)
        for one, other in zip(many, none, strict=True)
    ]
    return Step(stored, grown.products, many, none, median(ratios))
