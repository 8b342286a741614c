"""What a run measures, and how long each part takes."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.growth import run as growth
from benchmarks.progress import Progress
from benchmarks.results import Results
from benchmarks.speed import coalescing, components, logins, orders, reads
from benchmarks.speed.orders import Measurement, place_orders
from benchmarks.system.checks import find_failures
from benchmarks.system.shop import Shop, open_shop

OPEN_LOOP_SHARE = 0.7
"""Rate of the open loop, of what the same number of clients got accepted in the closed loop."""
LOGINS_SHARE = 0.1
"""Rate of reads, and of orders, during the logins, of the best rate at which orders settled."""

GROWTH_STEPS = 3


@dataclass(frozen=True)
class Scenario:
    """A run that measures speed: which measurements, and the seconds of each."""

    name: str
    seconds: float
    """Of each measurement of orders."""
    clients: Sequence[int]
    open_loop_clients: Sequence[int]
    """Those of `clients` that are also compared with an open loop."""
    coalescing_pairs: int
    component_seconds: float
    """Of components and of reads."""
    login_seconds: float
    growth_sizes: growth.Sizes | None = None
    """Growth of the same system; such a run uses no second system, for coalescing neither."""

    @property
    def steps(self) -> int:
        """The number of steps that `measure_speed` shows."""
        coalescing_steps = 1 + self.coalescing_pairs if self.coalescing_pairs else 0
        return 5 + len(self.clients) + len(self.open_loop_clients) + coalescing_steps


STANDARD = Scenario("standard", 10, (1, 16, 64, 256), (1, 16, 64, 256), 4, 4, 8)
QUICK = Scenario("quick", 3, (1, 16, 64, 256), (64,), 0, 1, 2)
SMOKE = Scenario("smoke", 1, (16,), (16,), 1, 0.2, 0.3, growth.SMOKE)


def measure_speed(scenario: Scenario, folder: Path, progress: Progress) -> Results:
    """Orders, components, reads, logins and coalescing, on a separate system."""
    results = Results(scenario.name)
    progress.step("starting a system")
    variables = _retention(scenario.growth_sizes) if scenario.growth_sizes else {}
    with open_shop(folder / "system", **variables) as shop:
        place_orders(shop, 64, scenario.seconds / 3)
        results.orders = list(_measure_orders(shop, scenario, progress))
        progress.step("each component alone")
        results.components = components.measure(shop, scenario.component_seconds)
        progress.step("reads")
        results.reads = reads.measure(shop, scenario.component_seconds)
        progress.step("logins")
        rate = max(10.0, LOGINS_SHARE * results.best_settled_per_second)
        results.logins = logins.measure(shop, rate, scenario.login_seconds)
        if scenario.coalescing_pairs:
            _measure_coalescing(shop, scenario, folder, results, progress)
        if scenario.growth_sizes:
            results.growth = growth.measure(shop, shop, scenario.growth_sizes, progress.update)
        progress.step("checking orders, stock and ledger")
        results.failures += find_failures(shop)
    return results


def measure_growth(sizes: growth.Sizes, folder: Path, progress: Progress) -> Results:
    """A system that grows, alternating with one that stays empty."""
    results = Results("growth")
    progress.step("starting two systems")
    with (
        open_shop(folder / "empty") as empty,
        open_shop(folder / "grown", **_retention(sizes)) as grown,
    ):
        progress.step("growing")
        results.growth = growth.measure(empty, grown, sizes, progress.update)
        progress.step("checking orders, stock and ledger")
        results.failures = find_failures(empty) + find_failures(grown)
    return results


def _retention(sizes: growth.Sizes) -> dict[str, str]:
    return {"OUTBOX_RETENTION_SECONDS": str(sizes.retention_seconds)}


def _measure_orders(shop: Shop, scenario: Scenario, progress: Progress) -> Iterator[Measurement]:
    for clients in scenario.clients:
        progress.step(f"closed loop, {clients} clients")
        place_orders(shop, clients, scenario.seconds / 3)
        closed = orders.measure(shop, clients, scenario.seconds)
        progress.show(closed)
        yield closed
        if clients in scenario.open_loop_clients:
            rate = max(1.0, OPEN_LOOP_SHARE * closed.load.per_second)
            progress.step(f"open loop, {rate:.0f} per second")
            opened = orders.measure(shop, clients, scenario.seconds, rate)
            progress.show(opened)
            yield opened


def _measure_coalescing(
    shop: Shop, scenario: Scenario, folder: Path, results: Results, progress: Progress
) -> None:
    """Alternate with a second system that handles each order separately."""
    progress.step("starting a system with BATCH_MAX_ITEMS=1")
    alone = open_shop(folder / "uncoalesced", BATCH_MAX_ITEMS="1")
    with nullcontext(shop) if scenario.growth_sizes else alone as off:
        place_orders(off, coalescing.CLIENTS, 1)
        results.coalescing = coalescing.measure(
            shop, off, scenario.coalescing_pairs, scenario.seconds, progress.step
        )
        results.failures += find_failures(off)
