"""Puts results into docs/performance.md, between its markers, and draws its pictures."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import growth_tables, pictures, speed_tables
from benchmarks.report import NOISY_PERCENT, Document, Table, noise_percent

CLIENTS_IN_PICTURE = 64
_GROWTH_PICTURE = "![CPU of an order over the orders stored](pictures/growth.svg)"


def publish(results: Sequence[Path], page: Path) -> None:
    """Replace the figures on `page` by those of these results; refuses those of void runs."""
    text = page.read_text()
    for path in results:
        found = json.loads(path.read_text())
        if found["complaints"]:
            raise ValueError(f"{path} is void: {found['complaints']}")
        if found["orders"]:
            text = _replace(text, "speed", found, speed_tables.tables(found))
            (page.parent / "pictures").mkdir(exist_ok=True)
            picture = pictures.order_svg(_pictured(found["orders"]))
            (page.parent / "pictures" / "order.svg").write_text(picture)
        if found["growth"]:
            tables = growth_tables.tables(found["growth"])
            text = _replace(text, "growth", found, tables, _GROWTH_PICTURE)
            (page.parent / "pictures").mkdir(exist_ok=True)
            picture = pictures.growth_svg(found["growth"]["steps"])
            (page.parent / "pictures" / "growth.svg").write_text(picture)
    page.write_text(text)


def _pictured(orders: Sequence[Document]) -> Document:
    closed = [one for one in orders if one["loop"] == "closed"]
    return next((one for one in closed if one["clients"] == CLIENTS_IN_PICTURE), closed[-1])


def _replace(
    text: str, name: str, found: Document, tables: Sequence[Table], picture: str = ""
) -> str:
    machine = found["machine"]
    where = (
        f"One run of {found['seconds'] / 60:.0f} minutes on a machine with {machine['cores']} cores"
        f" and {machine['memory_gib']} GiB of memory, which it shared with the load generator;"
        f" Python {machine['python']}."
    )
    noisy = noise_percent(found)
    if noisy > NOISY_PERCENT:
        where += (
            f" **Provisional:** other processes used up to {noisy:.0f} % of the machine meanwhile."
        )
    body = "\n".join([where, "", *(table.markdown() for table in tables), picture])
    start, end = f"<!-- {name}: figures -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no place for figures of {name}")
    return pattern.sub(lambda _: f"{start}\n{body}\n{end}", text)
