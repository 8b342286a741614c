"""The tables of a run that measures speed."""

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.report.table import Table
from benchmarks.results import PROGRAMS, Results
from benchmarks.speed.coalescing import Coalescing
from benchmarks.speed.components import Component
from benchmarks.speed.logins import LoginFlood
from benchmarks.speed.orders import Measurement
from benchmarks.speed.reads import Read

Format = Callable[[Measurement], str]


def tables(results: Results) -> list[Table]:
    """The tables of what was measured."""
    found = []
    if results.orders:
        found += [_orders(results.orders), _cpu(results.orders), _batches(results.orders)]
    if results.coalescing:
        found.append(_coalescing(results.coalescing))
    if results.components:
        found.append(_components(results.components, results.best_settled_per_second))
    if results.reads:
        found.append(_reads(results.reads))
    if results.logins:
        found.append(_logins(results.logins))
    return found


def _name(one: Measurement) -> str:
    if one.loop == "open":
        return f"open, {one.offered_per_second:.0f}/s offered"
    return f"closed, {one.clients:,} client{'' if one.clients == 1 else 's'}"


def _orders(orders: Sequence[Measurement]) -> Table:
    columns: dict[str, Format] = {
        "load": _name,
        "accepted/s": lambda one: f"{one.load.per_second:.0f}",
        "settled/s": lambda one: f"{one.settled_per_second:.0f}",
        "p50 ms": lambda one: f"{one.load.milliseconds['p50']:.1f}",
        "p99 ms": lambda one: f"{one.load.milliseconds['p99']:.1f}",
        "p99.9 ms": lambda one: f"{one.load.milliseconds['p99.9']:.1f}",
        "time to settle p50 / p99 ms": lambda one: (
            f"{one.settle_milliseconds['p50']:.0f} / {one.settle_milliseconds['p99']:.0f}"
        ),
        "CPU ms per order": lambda one: f"{one.cpu_per_order:.2f}",
        "generator CPU ms": lambda one: f"{one.generator_milliseconds:.2f}",
        "errors": lambda one: str(one.load.errors),
        "other processes' CPU": lambda one: f"{one.others_percent:.0f} %",
    }
    title = "POST /v1/orders (1 to 5 items, 10,000 products, 1,000 users)"
    return Table.from_items(title, orders, columns)


def _cpu(orders: Sequence[Measurement]) -> Table:
    def cell(program: str) -> Format:
        return lambda one: f"{one.cpu_milliseconds.get(program, 0):.3f}"

    columns = {program.removesuffix("_service"): cell(program) for program in PROGRAMS}
    return Table.from_items("CPU per order by program, ms", orders, {"load": _name} | columns)


def _batches(orders: Sequence[Measurement]) -> Table:
    columns: dict[str, Format] = {
        "load": _name,
        "gateway to orders": lambda one: f"{one.batches['accept']:.1f}",
        "outbox to broker (events)": lambda one: f"{one.batches['relay']:.1f}",
        "stock": lambda one: f"{one.batches['stock']:.1f}",
        "settlement": lambda one: f"{one.batches['settle']:.1f}",
    }
    return Table.from_items("Mean batch size by hop", orders, columns)


def _coalescing(found: Coalescing) -> Table:
    figures: dict[str, Callable[[Measurement], float]] = {
        "accepted/s": lambda one: one.load.per_second,
        "settled/s": lambda one: one.settled_per_second,
        "p50 ms": lambda one: one.load.milliseconds["p50"],
        "p99 ms": lambda one: one.load.milliseconds["p99"],
        "CPU ms per order": lambda one: one.cpu_per_order,
    }
    rows = []
    for name, figure in figures.items():
        on, off = [figure(one) for one in found.on], [figure(one) for one in found.off]
        ratio = median(a / b for a, b in zip(on, off, strict=True) if b)
        rows.append([name, f"{median(on):.2f}", f"{median(off):.2f}", f"{ratio:.2f}"])
    columns = ["medians", "on", "off (BATCH_MAX_ITEMS=1)", "ratio of pairs"]
    return Table(f"Coalescing, 64 clients, pairs of measurements: {len(found.on)}", columns, rows)


def _components(components: Sequence[Component], system: float) -> Table:
    slowest = min(components, key=lambda one: one.per_second)
    rows = [
        [one.name, f"{one.per_second:,.0f}", f"{100 * system / one.per_second:.0f} %"]
        for one in components
    ]
    share = f"{100 * system / slowest.per_second:.0f} % of the slowest"
    rows.append(["the whole system", f"{system:,.0f}", share])
    columns = ["component", "orders/s", "share that the whole system reaches"]
    return Table("Each component alone", columns, rows)


def _reads(reads: Sequence[Read]) -> Table:
    columns: dict[str, Callable[[Read], str]] = {
        "closed, 64 clients": lambda one: one.name,
        "requests/s": lambda one: f"{one.load.per_second:.0f}",
        "p50 ms": lambda one: f"{one.load.milliseconds['p50']:.1f}",
        "p99 ms": lambda one: f"{one.load.milliseconds['p99']:.1f}",
        "CPU ms per request": lambda one: f"{one.cpu_milliseconds:.2f}",
        "errors": lambda one: str(one.load.errors),
    }
    return Table.from_items("Reads", reads, columns)


def _logins(flood: LoginFlood) -> Table:
    rows = []
    for name, calm, flooded in (
        ("GET /v1/products/{id}", flood.calm_reads, flood.flooded_reads),
        ("POST /v1/orders", flood.calm_orders, flood.flooded_orders),
    ):
        before, during = calm.milliseconds, flooded.milliseconds
        latencies = [f"{each['p50']:.1f} / {each['p99']:.1f}" for each in (before, during)]
        ratio = f"{during['p99'] / max(0.1, before['p99']):.1f}"
        rows.append([name, *latencies, ratio, str(calm.errors), str(flooded.errors)])
    columns = ["latency p50 / p99, ms", "without logins", "during the flood", "p99 ratio"]
    columns += ["errors without", "errors during"]
    title = (
        f"Flood of logins (32 clients, {flood.logins.per_second:.0f} logins/s) during"
        f" {flood.rate_per_second:.0f} reads/s and as many orders/s, open loop"
    )
    return Table(title, columns, rows)
