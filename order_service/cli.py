"""The commands of `python -m order_service`: `migrate`, `check` and `timeline`."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.clients import open_inventory_channel
from order_service.consistency.checks import count_orders, run_checks
from order_service.consistency.clients import ReservationClient
from order_service.consistency.timeline import Step, dead_letter_steps, timeline
from order_service.settings import Settings
from service_kit import cli
from service_kit.consistency import Check, Finding
from service_kit.errors import Unavailable
from service_kit.postgres.engine import open_engine
from service_kit.settings import DEFAULT_BROKER_URL, BrokerUrl

STATEMENT_SECONDS = 600.0
"""Long enough to read all orders."""

commands = typer.Typer()


class TimelineSettings(Settings):
    """A timeline includes dead letters, which are in the broker."""

    rabbitmq_url: BrokerUrl = DEFAULT_BROKER_URL


@commands.command("migrate")
def migrate_database(env_file: cli.EnvFile = None) -> None:
    """Bring the database to the newest revision, and exit.

    The service does the same when it starts. Several replicas may run it at once.
    """
    settings = cli.load_settings(Settings, env_file)
    cli.run_migrations(settings.order_database_url, "order_service")


@commands.command()
def check(
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="An order or event that is unfinished for longer than this is late.",
        ),
    ] = 30.0,
    env_file: cli.EnvFile = None,
) -> None:
    """Check that all orders agree with their events and with what inventory deducted.

    Prints a line for each check, and a table of what it found.

    Only reads, locks nothing, and runs alongside the services.
    Needs the order database and the inventory service.

    Exit code: 0, no findings; 1, findings; 2, the check could not run.
    """
    settings = cli.load_settings(Settings, env_file)
    raise cli.print_findings(cli.run(_check(settings, grace)))


@commands.command("timeline")
def show_timeline(
    order_id: Annotated[
        uuid.UUID, typer.Argument(metavar="ORDER_ID", help="The order's UUID.", show_default=False)
    ],
    env_file: cli.EnvFile = None,
) -> None:
    """Show every step of one order: status, events, stock movements and dead letters.

    Times are UTC. Events are shown as long as the outbox keeps them
    (OUTBOX_RETENTION_SECONDS), everything else as long as the order exists.

    Exit code: 0, shown; 2, the order does not exist, or it could not be read.
    """
    settings = cli.load_settings(TimelineSettings, env_file)
    steps, notes = cli.run(_timeline(settings, order_id))
    first = steps[0].at
    rows = [
        (
            f"{step.at:%Y-%m-%d %H:%M:%S}.{step.at.microsecond // 1000:03}",
            f"{(step.at - first).total_seconds() * 1000:+.0f} ms",
            step.where,
            step.what,
            step.detail,
        )
        for step in steps
    ]
    cli.print_table(("Time", "After", "Where", "What", "Detail"), rows)
    for note in notes:
        cli.stdout.print(note, markup=False)


async def _check(settings: Settings, grace_seconds: float) -> dict[Check, Sequence[Finding]]:
    async with _sources(settings) as (engine, inventory):
        with cli.progress("orders", await count_orders(engine)) as advance:
            return await run_checks(
                engine,
                inventory,
                grace_seconds=grace_seconds,
                kept_seconds=settings.outbox_retention_seconds,
                advance=advance,
            )


async def _timeline(
    settings: TimelineSettings, order_id: uuid.UUID
) -> tuple[list[Step], list[str]]:
    """The steps, and remarks about what could not be read."""
    async with _sources(settings) as (engine, inventory):
        steps = await timeline(engine, inventory, order_id)
    try:
        steps += await dead_letter_steps(settings.rabbitmq_url, order_id)
    except Unavailable as error:
        return steps, [f"dead letters were not searched: {error.message}"]
    return sorted(steps, key=lambda step: step.at), []


@asynccontextmanager
async def _sources(settings: Settings) -> AsyncIterator[tuple[AsyncEngine, ReservationClient]]:
    url = settings.order_database_url
    async with (
        open_engine(url, "order_cli", 1, statement_seconds=STATEMENT_SECONDS) as engine,
        open_inventory_channel(settings.inventory_service_addr) as channel,
    ):
        yield engine, ReservationClient(channel)
