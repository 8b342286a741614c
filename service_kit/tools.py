"""What the command-line tools of the services share: settings, tables, progress, exit codes.

Exit codes: 0, all is well; 1, something is off; 2, the tool could not do its work.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from service_kit.audit import Finding, Rule
from service_kit.errors import ServiceError
from service_kit.settings import ServiceSettings, SettingsError, load

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")

OFF = 1
FAILED = 2

_PIPE_WIDTH = 160
"""A pipe has no width, and what is cut off is lost to grep."""
_SHOWN = 50

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        help="Variables that the environment does not set. Default: what ./start-services.sh"
        " wrote to $RUN_DIR/environment.env, if it is there.",
        exists=True,
        dir_okay=False,
    ),
]

output = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
notes = Console(highlight=False, stderr=True, soft_wrap=True)


def tool(description: str) -> typer.Typer:
    """A command line with named commands, also if there is only one."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=description)
    app.callback()(lambda: None)
    return app


def settings(cls: type[S], env_file: Path | None) -> S:
    """The service's own settings; a list of what is wrong and exit code 2 if they are."""
    usual = Path(os.environ.get("RUN_DIR") or ".run") / "environment.env"
    try:
        return load(cls, env_file or (usual if usual.is_file() else None))
    except SettingsError as error:
        raise failed(f"settings are missing or wrong:\n{error}") from error


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result; a line and exit code 2 if a neighbour fails it."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("ERROR"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(work)
    except ServiceError as error:
        raise failed(f"{error.message} ({error.reason})") from error


def failed(message: str) -> typer.Exit:
    """Say what went wrong; raise what this returns to end with exit code 2."""
    notes.print(f"error: {message}", markup=False)
    return typer.Exit(FAILED)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, which vanishes; call what it gives with each advance."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    quiet = not notes.is_terminal
    with Progress(*columns, console=notes, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; cells are plain text."""
    drawn = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))
    output.print(drawn)


def report(findings: Mapping[Rule, Sequence[Finding]]) -> typer.Exit:
    """Print which rules hold, and what breaks the others; what to raise to end."""
    table(
        ("", "Rule", "Off"),
        [(rule.invariant, rule.promise, str(len(off))) for rule, off in findings.items()],
    )
    total = sum(map(len, findings.values()))
    if not total:
        return typer.Exit(0)
    output.print()
    for rule, off in findings.items():
        if off:
            rows = [(rule.invariant, each.subject, each.detail) for each in off[:_SHOWN]]
            table(("", rule.promise.capitalize(), ""), rows)
            if len(off) > _SHOWN:
                output.print(f"… and {len(off) - _SHOWN} more")
            output.print()
    output.print(f"{total} off")
    return typer.Exit(OFF)
