"""A table of results: for the terminal, and as Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.table import Table as RichTable

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    """The first columns, which hold text; the others hold numbers and are aligned right."""

    @classmethod
    def from_items(
        cls,
        title: str,
        items: Iterable[T],
        columns: Mapping[str, Callable[[T], str]],
        text_columns: int = 1,
    ) -> "Table":
        """A table with a row per item; each column has a function that formats its cells."""
        rows = [[cell(item) for cell in columns.values()] for item in items]
        return cls(title, list(columns), rows, text_columns)

    def markdown(self) -> str:
        """The table as Markdown."""
        rules = ["---" if n < self.text_columns else "---:" for n in range(len(self.columns))]
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, *self.rows)]
        lines.insert(1, f"|{'|'.join(rules)}|")
        return "\n".join([f"**{self.title}**", "", *lines, ""])

    def show(self, console: Console) -> None:
        """Print the table."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < self.text_columns else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
