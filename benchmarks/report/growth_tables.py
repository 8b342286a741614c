"""The tables of growth."""

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.growth.endurance import Endurance
from benchmarks.growth.pages import Page
from benchmarks.growth.query_plans import QueryPlan
from benchmarks.growth.run import Growth, Step
from benchmarks.report.table import Table
from benchmarks.results import PROGRAMS, Results
from benchmarks.speed.orders import Measurement


def tables(results: Results) -> list[Table]:
    """The tables of growth, if it was measured."""
    growth = results.growth
    if not growth:
        return []
    return [
        _steps(growth.steps),
        _pages(growth.pages),
        _plans(growth.plans),
        _endurance(growth.endurance),
        _backlog_and_outbox(growth),
    ]


def _steps(steps: Sequence[Step]) -> Table:
    def settled(measurements: Sequence[Measurement]) -> str:
        return f"{median(one.settled_per_second for one in measurements):.0f}"

    def cpu(measurements: Sequence[Measurement]) -> str:
        return f"{median(one.cpu_per_order for one in measurements):.2f}"

    columns: dict[str, Callable[[Step], str]] = {
        "orders stored": lambda step: f"{step.stored:,}",
        "products": lambda step: f"{step.products:,}",
        "settled/s": lambda step: settled(step.grown),
        "settled/s, empty system": lambda step: settled(step.empty),
        "ratio of pairs": lambda step: f"{step.throughput_ratio:.2f}",
        "CPU ms per order": lambda step: cpu(step.grown),
        "CPU ms per order, empty system": lambda step: cpu(step.empty),
    }
    title = "Growth, 64 clients, alternating with an empty system"
    return Table.from_items(title, steps, columns)


def _pages(pages: Sequence[Page]) -> Table:
    columns: dict[str, Callable[[Page], str]] = {
        "list": lambda page: page.name,
        "entries before": lambda page: f"{page.depth:,}",
        "p50 ms": lambda page: f"{page.milliseconds:.1f}",
    }
    return Table.from_items("Pages of 100, one client", pages, columns)


def _plans(plans: Sequence[QueryPlan]) -> Table:
    columns: dict[str, Callable[[QueryPlan], str]] = {
        "statement": lambda plan: plan.name,
        "access paths": lambda plan: "; ".join(plan.access_paths),
        "estimated cost": lambda plan: f"{plan.cost:,.0f}",
    }
    return Table.from_items("Query plans", plans, columns, text_columns=2)


def _endurance(endurance: Endurance) -> Table:
    orders = endurance.orders
    at = sorted({0, len(orders) // 4, len(orders) // 2, len(orders) - 1})
    rows = [
        [name, *(f"{endurance.memory_mib[name][n]:.0f}" for n in at)]
        for name in PROGRAMS
        if name != "postgres"
    ]
    rows.append(["outbox rows", *(f"{endurance.outbox_rows[n]:,}" for n in at)])
    columns = ["memory, MiB, after", *(f"{orders[n]:,} orders" for n in at)]
    return Table("Endurance", columns, rows)


def _backlog_and_outbox(growth: Growth) -> Table:
    backlog, endurance = growth.backlog, growth.endurance
    pruned = endurance.pruned_after_seconds
    oldest = f"oldest sent outbox row at the end, kept for {endurance.retention_seconds} s"
    rows = {
        f"backlog of {backlog.events:,} orders": f"{backlog.per_second:,.0f} settled/s",
        "CPU per order, all programs": f"{sum(backlog.cpu_milliseconds.values()):.2f} ms",
        "peak memory of consumer_service": f"{backlog.consumer_mib:.0f} MiB",
        oldest: f"{endurance.oldest_sent_seconds:.0f} s",
        "pruned": "not within 10 minutes" if pruned < 0 else f"{pruned:.0f} s later",
    }
    return Table("Backlog and outbox", ["", "result"], list(rows.items()))
