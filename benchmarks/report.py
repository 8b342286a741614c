"""Tables of results: for the terminal, and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

Document = dict[str, Any]
"""Results as they are in the JSON file."""

NOISY_PERCENT = 10
"""Figures are not to be trusted if others used more of the machine meanwhile."""

PROGRAMS = (
    "api_gateway",
    "user_service",
    "order_service",
    "inventory_service",
    "producer_service",
    "consumer_service",
    "postgres",
    "rabbitmq",
    "supervisord",
)


def measurements(found: Document) -> list[Document]:
    """Every measurement of orders that was made."""
    turns = found["coalescing"] or {"on": [], "off": []}
    steps = found["growth"]["steps"] if found["growth"] else []
    pairs = [one for step in steps for one in step["grown"] + step["empty"]]
    return [*found["orders"], *turns["on"], *turns["off"], *pairs]


def noise_percent(found: Document) -> float:
    """The share of the machine that others used, in the measurement where that was most."""
    return max((one["others_percent"] for one in measurements(found)), default=0.0)


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column is a heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown, with numbers to the right."""
        lines = [
            f"**{self.title}**",
            "",
            f"| {' | '.join(self.columns)} |",
            f"|---|{'---:|' * (len(self.columns) - 1)}",
        ]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def show(self, console: Console) -> None:
        """Print it."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
