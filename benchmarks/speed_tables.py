"""The tables of a run without growth."""

from collections.abc import Callable
from statistics import median

from benchmarks.report import PROGRAMS, Document, Table


def tables(found: Document) -> list[Table]:
    """The tables of a run without growth."""
    tables = []
    if found["orders"]:
        tables += [_orders(found), _cpu(found), _batches(found)]
    if found["coalescing"]:
        tables.append(_coalescing(found["coalescing"]))
    if found["limits"]:
        tables.append(_limits(found))
    if found["reads"]:
        tables.append(_reads(found["reads"]))
    if found["flood"]:
        tables.append(_flood(found["flood"]))
    return tables


def best_settled(found: Document) -> float:
    """Orders settled a second, at the number of clients where that was most."""
    closed = [one["settled_per_second"] for one in found["orders"] if one["loop"] == "closed"]
    return max(closed, default=0.0)


def _name(one: Document) -> str:
    if one["loop"] == "closed":
        return f"closed, {_count(one['clients'], 'client')}"
    return f"open, {one['offered_per_second']:.0f}/s offered"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _orders(found: Document) -> Table:
    columns = ["load", "accepted/s", "settled/s", "p50 ms", "p99 ms", "p99.9 ms"]
    columns += [
        "settled after p50 / p99 ms",
        "CPU ms an order",
        "generator ms",
        "errors",
        "others' CPU",
    ]
    rows = [
        [
            _name(one),
            f"{one['accepted_per_second']:.0f}",
            f"{one['settled_per_second']:.0f}",
            *(f"{one['outcome']['milliseconds'][p]:.1f}" for p in ("p50", "p99", "p99.9")),
            f"{one['settle_milliseconds']['p50']:.0f} / {one['settle_milliseconds']['p99']:.0f}",
            f"{sum(one['cpu_milliseconds'].values()):.2f}",
            f"{one['generator_milliseconds']:.2f}",
            _errors(one["outcome"]),
            f"{one['others_percent']:.0f} %",
        ]
        for one in found["orders"]
    ]
    return Table("POST /v1/orders (1 to 5 items, 10,000 products, 1,000 users)", columns, rows)


def _cpu(found: Document) -> Table:
    rows = [
        [_name(one), *(f"{one['cpu_milliseconds'].get(name, 0):.3f}" for name in PROGRAMS)]
        for one in found["orders"]
    ]
    columns = ["load", *(name.removesuffix("_service") for name in PROGRAMS)]
    return Table("CPU an order by process, ms", columns, rows)


def _batches(found: Document) -> Table:
    hops = ("accept", "relay", "stock", "settle")
    rows = [
        [_name(one), *(f"{one['batches'][hop]:.1f}" for hop in hops)] for one in found["orders"]
    ]
    columns = ["load", "gateway to orders", "outbox to broker (events)", "stock", "settlement"]
    return Table("Mean batch at each hop", columns, rows)


def _coalescing(found: Document) -> Table:
    rows = []
    pairs = list(zip(found["on"], found["off"], strict=True))
    figures: dict[str, Callable[[Document], float]] = {
        "accepted/s": lambda one: one["accepted_per_second"],
        "settled/s": lambda one: one["settled_per_second"],
        "p50 ms": lambda one: one["outcome"]["milliseconds"]["p50"],
        "p99 ms": lambda one: one["outcome"]["milliseconds"]["p99"],
        "CPU ms an order": lambda one: sum(one["cpu_milliseconds"].values()),
    }
    for name, figure in figures.items():
        on, off = [figure(a) for a, _ in pairs], [figure(b) for _, b in pairs]
        ratio = median(a / b for a, b in zip(on, off, strict=True) if b)
        rows.append([name, f"{median(on):.2f}", f"{median(off):.2f}", f"{ratio:.2f} times"])
    columns = ["medians", "on", "off (BATCH_MAX_ITEMS=1)", "ratio of neighbours"]
    return Table(f"Coalescing, 64 clients, {len(pairs)} turns each", columns, rows)


def _limits(found: Document) -> Table:
    system = best_settled(found)
    slowest = min(limit["per_second"] for limit in found["limits"])
    rows = [
        [
            limit["name"],
            f"{limit['per_second']:,.0f}",
            f"{100 * system / limit['per_second']:.0f} %",
        ]
        for limit in found["limits"]
    ]
    rows.append(
        ["the whole system", f"{system:,.0f}", f"{100 * system / slowest:.0f} % of the slowest"]
    )
    return Table("The parts by themselves", ["part", "a second", "system's share of it"], rows)


def _reads(reads: list[Document]) -> Table:
    rows = [
        [
            read["name"],
            f"{_good_per_second(read['outcome']):.0f}",
            f"{read['outcome']['milliseconds']['p50']:.1f}",
            f"{read['outcome']['milliseconds']['p99']:.1f}",
            f"{read['cpu_milliseconds']:.2f}",
            _errors(read["outcome"]),
        ]
        for read in reads
    ]
    columns = ["closed, 64 clients", "a second", "p50 ms", "p99 ms", "CPU ms a request", "errors"]
    return Table("Reads", columns, rows)


def _good_per_second(outcome: Document) -> float:
    return float((outcome["answered"] - outcome["refused"]) / outcome["seconds"])


def _errors(outcome: Document) -> str:
    return str(outcome["refused"] + outcome["broken"])


def _flood(flood: Document) -> Table:
    rows = []
    for name, key in (("GET /v1/products/{id}", "reads"), ("POST /v1/orders", "orders")):
        calm = flood[f"calm_{key}"]["milliseconds"]
        flooded = flood[f"flooded_{key}"]["milliseconds"]
        rows.append(
            [
                name,
                f"{calm['p50']:.1f} / {calm['p99']:.1f}",
                f"{flooded['p50']:.1f} / {flooded['p99']:.1f}",
                f"{flooded['p99'] / max(0.1, calm['p99']):.1f} times",
                *(_errors(flood[f"{which}_{key}"]) for which in ("calm", "flooded")),
            ]
        )
    logins = _good_per_second(flood["logins"])
    columns = ["latency p50 / p99, ms", "calm", "flooded", "p99"]
    columns += ["errors, calm", "errors, flooded"]
    title = (
        f"A flood of log-ins (32 clients, {logins:.0f} served a second) beside"
        f" {flood['rate_per_second']:.0f} reads and as many orders a second, open loop"
    )
    return Table(title, columns, rows)
