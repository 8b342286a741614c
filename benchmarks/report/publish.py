"""Writes results into docs/performance.md, between its markers, and draws its pictures."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import growth_tables, speed_tables
from benchmarks.report.pictures import draw_growth, draw_order
from benchmarks.report.table import Table
from benchmarks.results import Results, read_results
from benchmarks.speed.orders import Measurement

CLIENTS_IN_PICTURE = 64
_GROWTH_PICTURE = "![CPU per order over the orders stored](pictures/growth.svg)"


def publish(files: Sequence[Path], page: Path) -> None:
    """Replace the figures on `page` with those of result files; ValueError if a run is void."""
    text = page.read_text()
    pictures = page.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for path in files:
        results = read_results(path)
        if results.failures:
            raise ValueError(f"{path} is void: {results.failures}")
        if results.orders:
            text = _replace(text, "speed", results, speed_tables.tables(results))
            draw_order(_pictured(results.orders), pictures / "order.svg")
        if results.growth:
            tables = growth_tables.tables(results)
            text = _replace(text, "growth", results, tables, _GROWTH_PICTURE)
            draw_growth(results.growth.steps, pictures / "growth.svg")
    page.write_text(text)


def _pictured(orders: Sequence[Measurement]) -> Measurement:
    closed = [one for one in orders if one.loop == "closed"]
    return next((one for one in closed if one.clients == CLIENTS_IN_PICTURE), closed[-1])


def _replace(
    text: str, name: str, results: Results, tables: Sequence[Table], picture: str = ""
) -> str:
    start, end = f"<!-- {name}: figures -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no markers for figures of {name}")
    body = "\n".join([_conditions(results), "", *(table.markdown() for table in tables), picture])
    return pattern.sub(lambda _: f"{start}\n{body}\n{end}", text)


def _conditions(results: Results) -> str:
    machine = results.machine
    conditions = (
        f"One run of {results.seconds / 60:.0f} minutes on a machine with {machine.cores} cores"
        f" and {machine.memory_gib} GiB of memory, which it shared with the load generator;"
        f" Python {machine.python}."
    )
    if results.is_noisy:
        conditions += (
            f" **Provisional:** other processes used up to {results.others_percent:.0f} % of the"
            " machine."
        )
    return conditions
