"""The tables of growth."""

from collections.abc import Sequence
from statistics import median

from benchmarks.growth.endurance import Endurance
from benchmarks.growth.pages import Page
from benchmarks.growth.query_plans import QueryPlan
from benchmarks.growth.run import Growth, Step
from benchmarks.report.table import Table
from benchmarks.results import PROGRAMS, Results


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
    rows = []
    for step in steps:
        settled = [
            median(one.settled_per_second for one in which) for which in (step.grown, step.empty)
        ]
        cpu = [median(one.cpu_per_order for one in which) for which in (step.grown, step.empty)]
        rows.append(
            [
                f"{step.stored:,}",
                f"{step.products:,}",
                *(f"{each:.0f}" for each in settled),
                f"{step.throughput_ratio:.2f}",
                *(f"{each:.2f}" for each in cpu),
            ]
        )
    columns = ["orders stored", "products", "settled/s", "empty system", "ratio"]
    columns += ["CPU ms per order", "empty system"]
    return Table("Growth, 64 clients, alternating with an empty system", columns, rows)


def _pages(pages: Sequence[Page]) -> Table:
    rows = [[page.name, f"{page.depth:,}", f"{page.milliseconds:.1f}"] for page in pages]
    return Table("Pages of 100, one client", ["list", "entries before", "p50 ms"], rows)


def _plans(plans: Sequence[QueryPlan]) -> Table:
    rows = [[plan.name, "; ".join(plan.access_paths), f"{plan.cost:,.0f}"] for plan in plans]
    columns = ["statement", "access paths", "estimated cost"]
    return Table("Query plans", columns, rows, text_columns=2)


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
    rows = [
        [f"backlog of {backlog.events:,} orders", f"{backlog.per_second:,.0f} settled/s"],
        ["CPU per order, all programs", f"{sum(backlog.cpu_milliseconds.values()):.2f} ms"],
        ["peak memory of consumer_service", f"{backlog.consumer_mib:.0f} MiB"],
        [
            f"oldest sent outbox row at the end, kept for {endurance.retention_seconds} s",
            f"{endurance.oldest_sent_seconds:.0f} s",
        ],
        ["pruned", "not within 10 minutes" if pruned < 0 else f"{pruned:.0f} s later"],
    ]
    return Table("Backlog and outbox", ["", "result"], rows)
