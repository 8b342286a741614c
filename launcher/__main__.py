"""The command line: `./start-services.sh [options | stop | status | logs]`."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from launcher import demo_catalogue, startup
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.services import SERVICES, START_ORDER
from launcher.summary import print_summary
from launcher.supervisor import log_files
from launcher.supervisor.supervisord import Supervisor

_EXIT_NOTHING_RUNS = 3
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Long lines are not wrapped, not even in a pipe, which has no width.
console = Console(highlight=False, soft_wrap=True)


class Interrupted(BaseException):
    """A signal asked the launcher to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@app.callback(invoke_without_command=True)
def up(
    context: typer.Context,
    *,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once everything is healthy.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Create a few products to try.")
    ] = True,
    infra_only: Annotated[
        bool,
        typer.Option("--infra-only", help="Only PostgreSQL and RabbitMQ, for tests.", hidden=True),
    ] = False,
) -> None:
    """Start the whole system and keep it running until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    layout = Layout.from_environment()
    with startup.exclusive(layout):
        _raise_on_signals()
        services = () if infra_only else SERVICES
        system = startup.start(layout, console, services, detach=detach)
        try:
            if services and demo:
                created = demo_catalogue.create(system.environment["INVENTORY_SERVICE_ADDR"])
                console.print(f"Demo catalogue: {created} products created")
            print_summary(console, layout, system, os.environ)
        except BaseException:
            startup.stop(layout)
            raise
        if detach:
            console.print("Stop with:     ./start-services.sh stop")
        else:
            console.print("Ctrl-C stops everything.")
            _stay_in_foreground(layout)


@app.command()
def stop() -> None:
    """Stop everything, in reverse start order."""
    layout = Layout.from_environment()
    running = Supervisor(layout).process() is not None
    if running:
        console.print("Stopping")
    leftovers = startup.stop(layout)
    if leftovers:
        console.print(f"Stopped processes without a supervisor: {', '.join(leftovers)}")
    console.print("Stopped" if running or leftovers else "Nothing was running")


@app.command()
def status() -> None:
    """One line per service: name, state, pid. Exit code 0 only if all are RUNNING."""
    supervisor = Supervisor(Layout.from_environment())
    states = supervisor.states()
    if not states and supervisor.process():
        console.print("Stopping")
        raise typer.Exit(1)
    if not states:
        console.print("Nothing is running: start it with ./start-services.sh")
        raise typer.Exit(_EXIT_NOTHING_RUNS)
    for state in states:
        console.print(f"{state.name:<18} {state.state:<9} {state.description}")
    if any(state.state != "RUNNING" for state in states):
        raise typer.Exit(1)


@app.command("logs")
def show_logs(
    service: Annotated[str | None, typer.Argument(help="Show only this service.")] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep showing new lines.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines of each log.")] = 50,
) -> None:
    """Show the last lines that the services logged."""
    paths = log_files.find(Layout.from_environment(), service)
    names = {path: name for name, path in paths.items()}
    width = max(len(name) for name in START_ORDER)

    def show(name: str, line: str) -> None:
        typer.echo(line if service else f"{name:<{width}} | {line}")

    for name, path in paths.items():
        for line in log_files.last_lines(path, lines):
            show(name, line)
    if follow:
        for path, line in log_files.follow(list(names)):
            show(names[path], line)


def _raise_on_signals() -> None:
    """Make the signals that end a program raise Interrupted, so that everything is stopped."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # An orderly stop takes seconds: a second Ctrl-C must not interrupt it.
        for other in _STOP_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        console.print("\nStopping")
        raise Interrupted(number)

    for number in _STOP_SIGNALS:
        # nohup ignores SIGHUP, which stays so. Shells ignore SIGINT for what they start with "&",
        # but a user who sends one wants a stop.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _stay_in_foreground(layout: Layout) -> None:
    """Return after a signal, or after another process has stopped the system."""
    process = Supervisor(layout).process()
    try:
        # supervisord is a child of this process, so its exit status is known.
        orderly = process is None or process.wait() == 0
    except Interrupted:
        orderly = True
    leftovers = startup.stop(layout)
    if not orderly:
        raise LauncherError(f"supervisord died; stopped its programs: {', '.join(leftovers)}")
    console.print("Stopped")


def main() -> None:
    """Run the command line; a LauncherError is a line on stderr and exit code 1."""
    try:
        app(prog_name="./start-services.sh")
    except LauncherError as error:
        console.stderr = True
        console.print(f"error: {error}", markup=False)
        sys.exit(1)
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.number)


if __name__ == "__main__":
    main()
