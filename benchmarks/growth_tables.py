"""The tables of growth."""

from statistics import median

from benchmarks.report import PROGRAMS, Document, Table


def tables(growth: Document) -> list[Table]:
    """The tables of growth."""
    return [
        _steps(growth),
        _pages(growth),
        _plans(growth),
        _endurance(growth),
        _lasting(growth),
    ]


def _steps(growth: Document) -> Table:
    rows = []
    for step in growth["steps"]:
        grown, empty = _medians(step["grown"]), _medians(step["empty"])
        rows.append(
            [
                f"{step['stored']:,}",
                f"{step['products']:,}",
                f"{grown[0]:.0f}",
                f"{empty[0]:.0f}",
                f"{step['throughput_ratio']:.2f}",
                f"{grown[1]:.2f}",
                f"{empty[1]:.2f}",
            ]
        )
    columns = ["orders stored", "products", "settled/s", "empty beside it", "ratio"]
    columns += ["CPU ms an order", "empty beside it"]
    return Table("Growth, 64 clients, in turns with an empty system", columns, rows)


def _medians(measurements: list[Document]) -> tuple[float, float]:
    """Settled a second and CPU ms an order."""
    return (
        median(one["settled_per_second"] for one in measurements),
        median(sum(one["cpu_milliseconds"].values()) for one in measurements),
    )


def _pages(growth: Document) -> Table:
    rows = [
        [page["name"], f"{page['depth']:,}", f"{page['milliseconds']:.1f}"]
        for page in growth["pages"]
    ]
    return Table("Pages of 100, one client", ["list", "entries before", "p50 ms"], rows)


def _plans(growth: Document) -> Table:
    rows = [
        [plan["name"], "; ".join(plan["ways"]), f"{plan['cost']:,.0f}"] for plan in growth["plans"]
    ]
    return Table("Plans", ["statement", "finds its rows by", "estimated cost"], rows)


def _endurance(growth: Document) -> Table:
    endurance = growth["endurance"]
    orders = endurance["orders"]
    at = sorted({0, len(orders) // 4, len(orders) // 2, len(orders) - 1})
    rows = [
        [name, *(f"{endurance['memory_mib'][name][n]:.0f}" for n in at)]
        for name in PROGRAMS
        if name != "postgres"
    ]
    rows.append(["outbox rows", *(f"{endurance['outbox_rows'][n]:,}" for n in at)])
    columns = ["memory, MiB, after", *(f"{orders[n]:,} orders" for n in at)]
    return Table("Endurance", columns, rows)


def _lasting(growth: Document) -> Table:
    backlog, endurance = growth["backlog"], growth["endurance"]
    pruned = endurance["pruned_after_seconds"]
    rows = [
        [f"backlog of {backlog['events']:,} orders", f"{backlog['per_second']:,.0f} settled/s"],
        [
            "CPU of one of them, all processes",
            f"{sum(backlog['cpu_milliseconds'].values()):.2f} ms",
        ],
        ["the consumer's memory meanwhile", f"{backlog['consumer_mib']:.0f} MiB"],
        [
            f"oldest delivered outbox row in the end, kept for {endurance['retention_seconds']} s",
            f"{endurance['oldest_delivered_seconds']:.0f} s",
        ],
        ["pruned", "not in ten minutes" if pruned < 0 else f"{pruned:.0f} s later"],
    ]
    return Table("Backlog and outbox", ["", "found"], rows)
