"""What a system costs once many orders are stored: alternating with an empty one, and alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.growth import pages, past_orders, query_plans
from benchmarks.growth.backlog import Backlog, drain
from benchmarks.growth.endurance import Endurance, endure
from benchmarks.growth.pages import Page
from benchmarks.growth.query_plans import QueryPlan
from benchmarks.progress import Update
from benchmarks.speed import orders
from benchmarks.speed.orders import Measurement, place_orders
from benchmarks.system import seed
from benchmarks.system.shop import Shop

CLIENTS = 64
ORDERS_PER_PRODUCT = 10
"""The catalogue grows to one product per this number of orders, if that is more."""


@dataclass(frozen=True)
class Sizes:
    """How far the system grows, and how long each measurement takes."""

    stored_orders: Sequence[int]
    pairs: int
    seconds: float
    backlog: int
    endurance: int
    retention_seconds: int
    """OUTBOX_RETENTION_SECONDS of the growing system."""


FULL = Sizes((0, 10_000, 100_000, 300_000, 1_000_000), 5, 5, 100_000, 200_000, 60)
SMOKE = Sizes((500,), 1, 0.3, 300, 100, 5)


@dataclass(frozen=True)
class Step:
    """The grown system and the empty one, measured in pairs."""

    stored: int
    products: int
    grown: list[Measurement]
    empty: list[Measurement]

    @property
    def throughput_ratio(self) -> float:
        """Median of the pairs: settled per second, grown against empty."""
        return median(
            grown.settled_per_second / max(1, empty.settled_per_second)
            for grown, empty in zip(self.grown, self.empty, strict=True)
        )


@dataclass(frozen=True)
class Growth:
    """All results of growth."""

    steps: list[Step]
    pages: list[Page]
    plans: list[QueryPlan]
    backlog: Backlog
    endurance: Endurance


def measure(empty: Shop, grown: Shop, sizes: Sizes, update: Update) -> Growth:
    """Let `grown` grow and measure it alternately with `empty`; both have only a catalogue."""
    steps = []
    for stored in sizes.stored_orders:
        _grow(grown, stored, update)
        steps.append(_measure_step(empty, grown, stored, sizes, update))
    update("pages at several depths, and query plans")
    return Growth(
        steps,
        pages.measure(grown, sizes.seconds / 5),
        query_plans.check(grown, sizes.retention_seconds),
        drain(grown, sizes.backlog, update),
        endure(grown, sizes.endurance, sizes.seconds, sizes.retention_seconds, update),
    )


def _grow(shop: Shop, stored: int, update: Update) -> None:
    products = max(shop.products, stored // ORDERS_PER_PRODUCT)
    if products > shop.products:
        seed.add_products(shop.system, shop.products + 1, products)
        shop.products = products
    if stored > shop.past_orders:
        past_orders.write(shop, shop.past_orders + 1, stored, update)


def _measure_step(empty: Shop, grown: Shop, stored: int, sizes: Sizes, update: Update) -> Step:
    step = Step(stored, grown.products, [], [])
    for shop in dict.fromkeys((empty, grown)):  # the smoke run measures one system as both
        place_orders(shop, CLIENTS, sizes.seconds)
    for pair in range(sizes.pairs):
        update(f"{stored:,} orders stored, and an empty system: {pair + 1} of {sizes.pairs}")
        turns = [(grown, step.grown), (empty, step.empty)]
        for shop, measurements in reversed(turns) if pair % 2 else turns:
            measurements.append(orders.measure(shop, CLIENTS, sizes.seconds))
    return step
