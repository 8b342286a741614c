"""The command line: `./run-benchmarks.sh [--quick | --growth] [--output FILE]`."""

import logging
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

from benchmarks import growth, growth_tables, load, selections, speed_tables
from benchmarks.progress import shown
from benchmarks.publish import publish
from benchmarks.report import NOISY_PERCENT, noise_percent
from benchmarks.results import Results
from benchmarks.system import CHECKOUT
from launcher.errors import LauncherError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    *,
    quick: Annotated[bool, typer.Option(help="A minute instead of five.")] = False,
    grow: Annotated[
        bool, typer.Option("--growth", help="Growth instead of speed; about ten minutes.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option(help="Everything as short as can be, for tests.", hidden=True)
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The JSON file; .run/benchmark-….json unless given.")
    ] = None,
) -> None:
    """Measure the system, on one that is started for it, and check that nothing was lost."""
    if context.invoked_subcommand is not None:
        return
    if quick and grow:
        raise typer.BadParameter("--growth has no quick way")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not load.has_wrk():
        console.print("wrk is not installed: our own generator does the closed loop, too.")
    plan = selections.SMOKE if smoke else selections.QUICK if quick else selections.STANDARD
    results = _run(plan, growth=grow)
    path = output or CHECKOUT / ".run" / f"benchmark-{results.selection}.json"
    results.write(path)
    _show(results)
    console.print(f"Written to {path}")
    if results.complaints:
        console.print("VOID: " + "; ".join(results.complaints), style="bold red")
        raise typer.Exit(1)
    console.print("All orders were settled, and stock and ledger are exact.")


@app.command("publish")
def put_into_page(
    results: list[Path],
    page: Annotated[Path, typer.Option()] = CHECKOUT / "docs" / "performance.md",
) -> None:
    """Put the figures of these JSON files into docs/performance.md and draw its pictures."""
    publish(results, page)


def _run(plan: selections.Plan, *, growth: bool) -> Results:
    # On the disk of the checkout: a temporary folder may be in memory, which costs no fsync.
    (CHECKOUT / ".run").mkdir(exist_ok=True)
    began = time.monotonic()
    steps = 3 if growth else selections.steps_of(plan)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=CHECKOUT / ".run") as folder,
        shown(console, steps) as progress,
    ):
        if growth:
            results = selections.grow(_sizes(plan), Path(folder), progress)
        else:
            results = selections.speed(plan, Path(folder), progress)
    results.seconds = time.monotonic() - began
    return results


def _sizes(plan: selections.Plan) -> growth.Sizes:
    return growth.TINY if plan is selections.SMOKE else growth.FULL


def _show(results: Results) -> None:
    found = results.document()
    tables = speed_tables.tables(found)
    if found["growth"]:
        tables += growth_tables.tables(found["growth"])
    for table in tables:
        table.show(console)
    if noise_percent(found) > NOISY_PERCENT:
        console.print("Other processes used the machine meanwhile: do not trust these figures.")


if __name__ == "__main__":
    try:
        app()
    except LauncherError as error:
        sys.exit(f"error: {error}")
