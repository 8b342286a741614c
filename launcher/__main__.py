"""The command line: `./start-services.sh [up options | stop | status | logs]`."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from launcher import demo, logs, report, startup
from launcher.layout import SERVICES, START_ORDER, Layout
from launcher.problem import Problem
from launcher.supervision import Supervisor

_NOTHING_RUNS = 3
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Lines of output stay lines, also in a pipe, which has no width.
console = Console(highlight=False, soft_wrap=True)


class Interrupted(BaseException):
    """A signal asked the launcher to end."""

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
    demo_catalogue: Annotated[
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
    with startup.only_one(layout):
        _catch_signals()
        services = () if infra_only else SERVICES
        system = startup.start(layout, console, services, outlive_us=detach)
        try:
            if services and demo_catalogue:
                address = system.environment["INVENTORY_SERVICE_ADDR"]
                console.print(f"Demo catalogue: {demo.create_catalogue(address)} products created")
            report.show(console, layout, system, os.environ)
        except BaseException:
            startup.stop(layout)
            raise
        if detach:
            console.print("Stop with:     ./start-services.sh stop")
        else:
            console.print("Ctrl-C stops everything.")
            _hold(layout)


@app.command()
def stop() -> None:
    """Stop everything, in reverse start order."""
    layout = Layout.from_environment()
    running = Supervisor(layout).process() is not None
    if running:
        console.print("Stopping")
    left = startup.stop(layout)
    if left:
        console.print(f"Ended what nobody supervised any more: {', '.join(left)}")
    console.print("Stopped" if running or left else "Nothing was running")


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
        raise typer.Exit(_NOTHING_RUNS)
    for state in states:
        console.print(f"{state.name:<18} {state.state:<9} {state.description}")
    if any(state.state != "RUNNING" for state in states):
        raise typer.Exit(1)


@app.command("logs")
def show_logs(
    service: Annotated[str | None, typer.Argument(help="One of them only.")] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0)] = 50,
) -> None:
    """Show the last lines that the services logged."""
    paths = logs.files(Layout.from_environment(), service)
    names = {path: name for name, path in paths.items()}
    width = max(len(name) for name in START_ORDER)

    def show(name: str, line: str) -> None:
        typer.echo(line if service else f"{name:<{width}} | {line}")

    for name, path in paths.items():
        for line in logs.last_lines(path, lines):
            show(name, line)
    if follow:
        for path, line in logs.follow(list(names)):
            show(names[path], line)


def _catch_signals() -> None:
    """Turn the signals that end a program into an exception, so that everything is undone."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # What follows is the orderly end, which takes seconds: a second Ctrl-C must not cut it.
        for other in _ENDING_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        console.print("\nStopping")
        raise Interrupted(number)

    for number in _ENDING_SIGNALS:
        # nohup asks to be left alone. Shells also ignore SIGINT for what they start with "&", but
        # whoever sends one here wants an end.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _hold(layout: Layout) -> None:
    """Stay until a signal, or until the system was stopped from elsewhere."""
    process = Supervisor(layout).process()
    try:
        # It is our child, so we learn how it ended.
        orderly = process is None or process.wait() == 0
    except Interrupted:
        orderly = True
    left = startup.stop(layout)
    if not orderly:
        raise Problem(f"supervisord died; ended what it had left: {', '.join(left)}")
    console.print("Stopped")


def main() -> None:
    """Run the command line; a Problem is a line on stderr and exit code 1."""
    try:
        app(prog_name="./start-services.sh")
    except Problem as problem:
        console.stderr = True
        console.print(f"error: {problem}", markup=False)
        sys.exit(1)
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.number)


if __name__ == "__main__":
    main()
