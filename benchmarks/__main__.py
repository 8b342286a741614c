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

from benchmarks import scenarios
from benchmarks.growth import run as growth
from benchmarks.load import loops
from benchmarks.progress import show_progress
from benchmarks.report import growth_tables, speed_tables
from benchmarks.report.publish import publish
from benchmarks.results import Results
from benchmarks.system.launch import CHECKOUT
from launcher.errors import LauncherError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    *,
    quick: Annotated[bool, typer.Option(help="One minute instead of four.")] = False,
    grow: Annotated[
        bool, typer.Option("--growth", help="Growth instead of speed; about ten minutes.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option(help="Everything as short as possible, for tests.", hidden=True)
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The JSON file. Default: .run/benchmark-….json")
    ] = None,
) -> None:
    """Start a separate system, measure it, and check that nothing was lost."""
    if context.invoked_subcommand is not None:
        return
    if quick and grow:
        raise typer.BadParameter("--growth cannot be combined with --quick")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not loops.has_wrk():
        console.print("wrk is not installed: the built-in generator also drives the closed loop.")
    scenario = scenarios.SMOKE if smoke else scenarios.QUICK if quick else scenarios.STANDARD
    results = _run(scenario, grow=grow)
    path = output or CHECKOUT / ".run" / f"benchmark-{results.scenario}.json"
    results.write(path)
    _show(results)
    console.print(f"Results: {path}")
    if results.failures:
        console.print("VOID: " + "; ".join(results.failures), style="bold red")
        raise typer.Exit(1)
    console.print("All orders are settled, and stock and ledger are exact.")


@app.command("publish")
def publish_results(
    results: list[Path],
    page: Annotated[Path, typer.Option()] = CHECKOUT / "docs" / "performance.md",
) -> None:
    """Write the figures of JSON files into docs/performance.md and draw its pictures."""
    publish(results, page)


def _run(scenario: scenarios.Scenario, *, grow: bool) -> Results:
    # On the disk of the checkout: a temporary folder may be in memory, where fsync costs nothing.
    (CHECKOUT / ".run").mkdir(exist_ok=True)
    started = time.monotonic()
    steps = scenarios.GROWTH_STEPS if grow else scenario.steps
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=CHECKOUT / ".run") as folder,
        show_progress(console, steps) as progress,
    ):
        if grow:
            sizes = scenario.growth_sizes or growth.FULL
            results = scenarios.measure_growth(sizes, Path(folder), progress)
        else:
            results = scenarios.measure_speed(scenario, Path(folder), progress)
    results.seconds = time.monotonic() - started
    return results


def _show(results: Results) -> None:
    for table in speed_tables.tables(results) + growth_tables.tables(results):
        table.show(console)
    if results.is_noisy:
        console.print("Other processes used the machine: these figures are not reliable.")


if __name__ == "__main__":
    try:
        app()
    except LauncherError as error:
        sys.exit(f"error: {error}")
