"""`python -m consumer_service dead-letters`: show dead letters and give them back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from aio_pika.abc import AbstractChannel

from consumer_service.clients import (
    InventoryClient,
    OrderClient,
    open_inventory_channel,
    open_order_channel,
)
from consumer_service.dead_letters.dry_run import MAX_LETTERS, DryRun
from consumer_service.dead_letters.letters import (
    DeadLetter,
    browse_dead_letters,
    count_dead_letters,
)
from consumer_service.dead_letters.redrive import redrive
from consumer_service.settings import Settings
from proto.events import EXCHANGE
from service_kit import cli
from service_kit.rabbitmq.connection import open_channel, open_connection

CONNECTION_NAME = "dead_letters"

Filter = Callable[[DeadLetter], bool]
Rows = list[tuple[str, ...]]

OrderOption = Annotated[
    str | None,
    typer.Option("--order", metavar="ORDER_ID", help="Only events of this order."),
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Only reasons that contain TEXT.")
]
LimitOption = Annotated[
    int, typer.Option(min=1, help="Read at most this many messages of the queue, oldest first.")
]

dead_letter_commands = typer.Typer(
    no_args_is_help=True,
    help="Show events that could not be handled, and give them back to the consumer.",
)


@dead_letter_commands.command("list")
def list_letters(
    order: OrderOption = None,
    reason: ReasonOption = None,
    limit: LimitOption = 1_000,
    env_file: cli.EnvFile = None,
) -> None:
    """Show dead letters, oldest first, each with the reason why it could not be handled.

    They stay in their queue.
    """
    settings = cli.load_settings(Settings, env_file)
    rows, unread = cli.run(_list(settings, _matches((), order, reason), limit))
    if rows:
        cli.print_table(("Event", "Type", "Order", "Since", "Reason"), rows)
    cli.stdout.print(f"{len(rows)} shown" + (f", {unread} more were not read" if unread else ""))


@dead_letter_commands.command("redrive")
def redrive_letters(
    event_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="EVENT_ID", help="Ids of events, as `list` shows them."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    order: OrderOption = None,
    reason: ReasonOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what redriving each would do.")
    ] = False,
    limit: LimitOption = 100_000,
    env_file: cli.EnvFile = None,
) -> None:
    """Give dead letters back to the consumer, each under its own event id.

    Repair the cause first: an event that still cannot be handled becomes a dead letter again.
    Redriving an event twice does no harm, because no event is applied twice.

    Exit code 1: a named event is not in the queue, or the broker refused one.
    """
    if not (event_ids or everything or order or reason):
        raise typer.BadParameter("name events, or give --order, --reason or --all")
    settings = cli.load_settings(Settings, env_file)
    matches = _matches(event_ids or (), order, reason)
    rows: Rows = []
    try:
        cli.run((_dry_run if dry_run else _redrive)(settings, matches, limit, rows))
    finally:
        # Also if the broker failed half-way: what is redriven is redriven.
        refused = _report(rows, dry_run=dry_run)
    missing = sorted(set(event_ids or ()) - {row[0] for row in rows})
    for event_id in missing:
        cli.stdout.print(f"not in the queue: {event_id}", markup=False)
    if missing or refused:
        raise typer.Exit(cli.FOUND_SOMETHING)


_REDRIVEN = "redriven"


def _report(rows: Rows, *, dry_run: bool) -> int:
    """Print what was done, or would be; returns how many letters the broker refused."""
    if rows:
        cli.print_table(("Event", "Type", "Order", "Effect" if dry_run else "Result"), rows)
    if dry_run:
        cli.stdout.print("dry run: nothing was changed")
        return 0
    refused = sum(row[-1] != _REDRIVEN for row in rows)
    cli.stdout.print(f"{len(rows) - refused} redriven, {refused} refused")
    return refused


def _matches(event_ids: Sequence[str], order: str | None, reason: str | None) -> Filter:
    wanted = set(event_ids)
    return lambda letter: (
        (not wanted or letter.event_id in wanted)
        and (order is None or letter.order_id == order)
        and (reason is None or reason in letter.reason)
    )


async def _list(settings: Settings, matches: Filter, limit: int) -> tuple[Rows, int]:
    """The rows to show, and how many letters of the queue were not read."""
    async with AsyncExitStack() as stack:
        channel = await _open_channel(stack, settings)
        letters = await _read(channel, matches, limit)
        unread = await count_dead_letters(channel)
        rows: Rows = [(*_identify(each), _format_since(each), each.reason) for each in letters]
        return rows, unread


async def _redrive(settings: Settings, matches: Filter, limit: int, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        channel = await _open_channel(stack, settings)
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        letters = await _read(channel, matches, limit)
        with cli.progress("redriving", len(letters)) as advance:
            for letter in letters:
                refusal = await redrive(exchange, letter)
                rows.append((*_identify(letter), refusal or _REDRIVEN))
                advance(1)


async def _dry_run(settings: Settings, matches: Filter, limit: int, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        inventory = await enter(open_inventory_channel(settings.inventory_service_addr))
        orders = await enter(open_order_channel(settings.order_service_addr))
        dry_run = DryRun(
            InventoryClient(inventory, validate_only=True), OrderClient(orders, validate_only=True)
        )
        letters = await _read(await _open_channel(stack, settings), matches, limit)
        with cli.progress("dry run", len(letters)) as advance:
            for batch in _batches(letters, MAX_LETTERS):
                effects = await dry_run.effects(batch)
                rows += [
                    (*_identify(letter), effect)
                    for letter, effect in zip(batch, effects, strict=True)
                ]
                advance(len(batch))


async def _open_channel(stack: AsyncExitStack, settings: Settings) -> AbstractChannel:
    opened = open_connection(settings.rabbitmq_url, CONNECTION_NAME)
    connection = await stack.enter_async_context(opened)
    return await open_channel(connection, publisher_confirms=True)


async def _read(channel: AbstractChannel, matches: Filter, limit: int) -> list[DeadLetter]:
    """The letters that match, of the first `limit` in the queue.

    All that were read are held back until the channel is closed.
    """
    total = await count_dead_letters(channel)
    letters = []
    with cli.progress("reading", min(limit, total)) as advance:
        async for letter in browse_dead_letters(channel, limit):
            advance(1)
            if matches(letter):
                letters.append(letter)
    return letters


def _batches(letters: Sequence[DeadLetter], size: int) -> Iterator[Sequence[DeadLetter]]:
    for start in range(0, len(letters), size):
        yield letters[start : start + size]


def _identify(letter: DeadLetter) -> tuple[str, str, str]:
    return letter.event_id, letter.type, letter.order_id


def _format_since(letter: DeadLetter) -> str:
    return f"{letter.since:%Y-%m-%d %H:%M:%S}" if letter.since else ""
