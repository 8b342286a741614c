"""What a run is doing, for the person who waits."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from benchmarks.measure import Measurement


class Progress:
    """A bar with the step that is being done; where there is no terminal, a line for each."""

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

    def tell(self, text: str) -> None:
        """Say how far the step is."""
        self._bar.update(self._task, description=text)

    def tell_orders(self, one: Measurement) -> None:
        """Show a measurement in short."""
        latency = one.outcome.milliseconds
        self._console.print(
            f"  {one.accepted_per_second:.0f} accepted/s, {one.settled_per_second:.0f} settled/s,"
            f" p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms,"
            f" {one.cpu_per_order:.2f} ms of CPU an order, {one.outcome.errors} errors"
        )


@contextmanager
def shown(console: Console, steps: int) -> Iterator[Progress]:
    """Show progress inside the block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Progress(console, bar, steps)
