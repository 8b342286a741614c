"""For the people who run the orders: `python -m order_service.tools audit` and `... trace`."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import orjson
import typer

from order_service.audit import Books, count_orders, run_audit
from order_service.clients import ReservationClient, open_inventory_channel
from order_service.settings import Settings
from order_service.trace import Step, trace
from proto.dead_letters import REASON_HEADER, TIME_HEADER
from proto.events import DEAD_LETTER_QUEUE
from service_kit import cli
from service_kit.consistency import Check, Finding
from service_kit.errors import Unavailable
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate
from service_kit.rabbitmq.connection import open_connection
from service_kit.rabbitmq.consume import browse_queue
from service_kit.settings import DEFAULT_BROKER_URL, BrokerUrl

STATEMENT_SECONDS = 600.0
MAX_DEAD_LETTERS = 1_000

commands = typer.Typer()


class TraceSettings(Settings):
    """A trace looks for dead letters too."""

    rabbitmq_url: BrokerUrl = DEFAULT_BROKER_URL


@commands.command("migrate")
def migrate_database(env_file: cli.EnvFile = None) -> None:
    """Bring the database to the newest revision, as serving does too."""
    settings = cli.load_settings(Settings, env_file)
    cli.run(migrate(settings.order_database_url, "order_service"))


@commands.command()
def check(
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds until what is under way counts as late.")
    ] = 30.0,
    env_file: cli.EnvFile = None,
) -> None:
    """Check orders and events, and each order against inventory; exit code 1 if something is off.

    Reads while the services go on, and writes nothing.
    """
    settings = cli.load_settings(Settings, env_file)
    raise cli.print_findings(cli.run(_audit(settings, grace)))


@commands.command("timeline")
def show_timeline(
    order_id: Annotated[uuid.UUID, typer.Argument(metavar="ORDER_ID")],
    env_file: cli.EnvFile = None,
) -> None:
    """Show every step that an order took, with times (UTC)."""
    settings = cli.load_settings(TraceSettings, env_file)
    steps, notes = cli.run(_trace(settings, order_id))
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


async def _audit(settings: Settings, grace: float) -> dict[Check, Sequence[Finding]]:
    async with _books(settings) as books:
        with cli.progress("orders", await count_orders(books.engine)) as advance:
            return await run_audit(
                books,
                grace_seconds=grace,
                kept_seconds=settings.outbox_retention_seconds,
                advance=advance,
            )


async def _trace(settings: TraceSettings, order_id: uuid.UUID) -> tuple[list[Step], list[str]]:
    async with _books(settings) as books:
        steps = await trace(books, order_id)
    try:
        steps += await _dead_letters(settings.rabbitmq_url, order_id)
    except Unavailable as error:
        return steps, [f"dead letters were not looked at: {error.message}"]
    return sorted(steps, key=lambda step: step.at), []


@asynccontextmanager
async def _books(settings: Settings) -> AsyncIterator[Books]:
    url = settings.order_database_url
    async with (
        open_engine(url, "order_audit", 1, statement_seconds=STATEMENT_SECONDS) as engine,
        open_inventory_channel(settings.inventory_service_addr) as channel,
    ):
        yield Books(engine, ReservationClient(channel))


async def _dead_letters(url: str, order_id: uuid.UUID) -> list[Step]:
    async with open_connection(url, "order_trace") as connection:
        channel = await connection.channel()
        return [
            Step(
                _dead_since(message.headers),
                "consumer",
                f"{message.routing_key} is a dead letter",
                f"{message.headers.get(REASON_HEADER)!s}, event {message.message_id}",
            )
            async for message in browse_queue(channel, DEAD_LETTER_QUEUE, MAX_DEAD_LETTERS)
            if _subject(message.body) == str(order_id)
        ]


def _dead_since(headers: Mapping[str, object]) -> dt.datetime:
    """When the consumer gave it up; what the broker itself laid there tells no time: now."""
    told = headers.get(TIME_HEADER)
    return dt.datetime.fromisoformat(str(told)) if told else dt.datetime.now(dt.UTC)


def _subject(body: bytes) -> str:
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(envelope.get("subject", "")) if isinstance(envelope, dict) else ""
