"""The command line of a service.

`python -m order_service` serves; other commands are for operators.

Exit codes: 0, success; 1, the command found something wrong; 2, it could not do its work.
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
from alembic.util import CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from service_kit.consistency import Check, Finding
from service_kit.errors import ServiceError
from service_kit.lifecycle import Serve
from service_kit.lifecycle import run as run_service
from service_kit.postgres.migrations import migrate
from service_kit.settings import ServiceSettings, SettingsError, load

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")

FOUND_SOMETHING = 1
FAILED = 2

_PIPE_WIDTH = 160
"""A pipe has no width, and grep cannot find truncated text."""
_MAX_ROWS = 50

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        help="Variables that the environment does not set. Default: what ./start-services.sh"
        " wrote to $RUN_DIR/environment.env, if that file exists.",
        exists=True,
        dir_okay=False,
    ),
]

stdout = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
stderr = Console(highlight=False, stderr=True, soft_wrap=True)


def service_cli(
    package: str,
    settings: type[S],
    serve: Serve[S],
    description: str,
    commands: typer.Typer | None = None,
) -> typer.Typer:
    """The command line of a service: it serves, unless one of its `commands` is named."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        help=f"{description}\n\nWithout a command it serves. Settings are environment variables;"
        " docs/configuration.md lists them.",
    )

    @app.callback(invoke_without_command=True)
    def default(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            raise typer.Exit(run_service(package, settings, serve))

    @app.command("serve")
    def serve_command() -> None:
        """Serve until SIGTERM or SIGINT."""
        raise typer.Exit(run_service(package, settings, serve))

    if commands is not None:
        app.add_typer(commands)
    return app


def load_settings(cls: type[S], env_file: Path | None) -> S:
    """The settings of the service; prints every invalid one and ends with exit code 2 otherwise."""
    default = Path(os.environ.get("RUN_DIR") or ".run") / "environment.env"
    try:
        return load(cls, env_file or (default if default.is_file() else None))
    except SettingsError as error:
        raise fail(f"settings are missing or invalid:\n{error}") from error


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result; a ServiceError is printed and ends with exit code 2."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("ERROR"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(work)
    except ServiceError as error:
        raise fail(f"{error.message} ({error.reason})") from error


def run_migrations(url: str, package: str) -> None:
    """Bring the database at `url` to the newest revision of `package`, and say so."""
    try:
        run(migrate(url, package))
    except CommandError as error:
        raise fail(f"the database cannot be migrated: {error}") from error
    stdout.print("The database is at the newest revision.")


def fail(message: str) -> typer.Exit:
    """Print an error; raise what this returns to end with exit code 2."""
    stderr.print(f"error: {message}", markup=False)
    return typer.Exit(FAILED)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, inside the block; call what it yields to advance it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    quiet = not stderr.is_terminal
    with Progress(*columns, console=stderr, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; cells are plain text."""
    table = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    stdout.print(table)


def print_findings(findings: Mapping[Check, Sequence[Finding]]) -> typer.Exit:
    """Print each check with its findings; raise what this returns to end."""
    print_table(
        ("", "Check", "Findings"),
        [(check.invariant, check.promise, str(len(found))) for check, found in findings.items()],
    )
    total = sum(map(len, findings.values()))
    if not total:
        return typer.Exit(0)
    stdout.print()
    for check, found in findings.items():
        if found:
            rows = [(check.invariant, each.subject, each.detail) for each in found[:_MAX_ROWS]]
            print_table(("", check.promise.capitalize(), ""), rows)
            if len(found) > _MAX_ROWS:
                stdout.print(f"… and {len(found) - _MAX_ROWS} more")
            stdout.print()
    stdout.print(f"{total} {'finding' if total == 1 else 'findings'}")
    return typer.Exit(FOUND_SOMETHING)
