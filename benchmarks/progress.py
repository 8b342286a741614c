"""What a run is doing, for the person who watches it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from benchmarks.speed.orders import Measurement

Update = Callable[[str], None]
"""Shows how far the current step is."""


class Progress:
    """A bar with the current step; without a terminal, a line per step."""

    def __init__(self, console: Console, bar: Bar, steps: int) -> None:
        self._console = console
        self._bar = bar
        self._task = bar.add_task("", total=steps)
        self._started = 0

    def step(self, name: str) -> None:
        """Begin the next step."""
        self._bar.update(self._task, description=name, completed=self._started)
        self._started += 1
        if not self._console.is_terminal:
            self._console.print(name)

    def update(self, text: str) -> None:
        """Show how far the current step is."""
        self._bar.update(self._task, description=text)

    def show(self, one: Measurement) -> None:
        """Print a short form of a measurement."""
        latency = one.load.milliseconds
        self._console.print(
            f"  {one.load.per_second:.0f} accepted/s, {one.settled_per_second:.0f} settled/s,"
            f" p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms,"
            f" {one.cpu_per_order:.2f} ms of CPU per order, {one.load.errors} errors"
        )


@contextmanager
def show_progress(console: Console, steps: int) -> Iterator[Progress]:
    """Show progress inside the block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Progress(console, bar, steps)
