"""The tables of a run that measures speed."""

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.report.table import Table
from benchmarks.results import PROGRAMS, Results
from benchmarks.speed.coalescing import Coalescing
from benchmarks.speed.logins import LoginFlood
from benchmarks.speed.orders import Measurement
from benchmarks.speed.reads import Read

HOPS = {
    "accept": "gateway to orders",
    "relay": "outbox to broker (events)",
    "stock": "stock",
    "settle": "settlement",
}


def tables(results: Results) -> list[Table]:
    """The tables of what was measured."""
    found = []
    if results.orders:
        orders = results.orders
        found += [_orders(orders), _cpu(orders), _batches(orders)]
    if results.coalescing:
        found.append(_coalescing(results.coalescing))
    if results.components:
        found.append(_components(results))
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
    columns = ["load", "accepted/s", "settled/s", "p50 ms", "p99 ms", "p99.9 ms"]
    columns += ["time to settle p50 / p99 ms", "CPU ms per order", "generator CPU ms"]
    columns += ["errors", "other processes' CPU"]
    rows = [
        [
            _name(one),
            f"{one.load.per_second:.0f}",
            f"{one.settled_per_second:.0f}",
            *(f"{one.load.milliseconds[p]:.1f}" for p in ("p50", "p99", "p99.9")),
            f"{one.settle_milliseconds['p50']:.0f} / {one.settle_milliseconds['p99']:.0f}",
            f"{one.cpu_per_order:.2f}",
            f"{one.generator_milliseconds:.2f}",
            str(one.load.errors),
            f"{one.others_percent:.0f} %",
        ]
        for one in orders
    ]
    return Table("POST /v1/orders (1 to 5 items, 10,000 products, 1,000 users)", columns, rows)


def _cpu(orders: Sequence[Measurement]) -> Table:
    columns = ["load", *(name.removesuffix("_service") for name in PROGRAMS)]
    rows = [
        [_name(one), *(f"{one.cpu_milliseconds.get(name, 0):.3f}" for name in PROGRAMS)]
        for one in orders
    ]
    return Table("CPU per order by program, ms", columns, rows)


def _batches(orders: Sequence[Measurement]) -> Table:
    rows = [[_name(one), *(f"{one.batches[hop]:.1f}" for hop in HOPS)] for one in orders]
    return Table("Mean batch size by hop", ["load", *HOPS.values()], rows)


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
    return Table(f"Coalescing, 64 clients, {len(found.on)} pairs", columns, rows)


def _components(results: Results) -> Table:
    system = results.best_settled_per_second
    slowest = min(each.per_second for each in results.components)
    rows = [
        [each.name, f"{each.per_second:,.0f}", f"{100 * system / each.per_second:.0f} %"]
        for each in results.components
    ]
    rows.append(
        ["the whole system", f"{system:,.0f}", f"{100 * system / slowest:.0f} % of the slowest"]
    )
    columns = ["component", "orders/s", "the whole system, of it"]
    return Table("Each component alone", columns, rows)


def _reads(reads: Sequence[Read]) -> Table:
    rows = [
        [
            read.name,
            f"{read.load.per_second:.0f}",
            f"{read.load.milliseconds['p50']:.1f}",
            f"{read.load.milliseconds['p99']:.1f}",
            f"{read.cpu_milliseconds:.2f}",
            str(read.load.errors),
        ]
        for read in reads
    ]
    columns = ["closed, 64 clients", "requests/s", "p50 ms", "p99 ms", "CPU ms per request"]
    return Table("Reads", [*columns, "errors"], rows)


def _logins(flood: LoginFlood) -> Table:
    kinds = {
        "GET /v1/products/{id}": (flood.calm_reads, flood.flooded_reads),
        "POST /v1/orders": (flood.calm_orders, flood.flooded_orders),
    }
    rows = []
    for name, (calm, flooded) in kinds.items():
        before, during = calm.milliseconds, flooded.milliseconds
        rows.append(
            [
                name,
                f"{before['p50']:.1f} / {before['p99']:.1f}",
                f"{during['p50']:.1f} / {during['p99']:.1f}",
                f"{during['p99'] / max(0.1, before['p99']):.1f} times",
                str(calm.errors),
                str(flooded.errors),
            ]
        )
    columns = ["latency p50 / p99, ms", "without log-ins", "during the flood", "p99"]
    columns += ["errors without", "errors during"]
    title = (
        f"Flood of log-ins (32 clients, {flood.logins.per_second:.0f} log-ins/s) during"
        f" {flood.rate_per_second:.0f} reads/s and as many orders/s, open loop"
    )
    return Table(title, columns, rows)
