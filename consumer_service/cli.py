"""For the people who run the consumer: `python -m consumer_service.tools dead-letters list`."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from aio_pika.abc import AbstractChannel

from consumer_service.clients import open_inventory_channel, open_order_channel
from consumer_service.dead_letters import DeadLetter, Rehearsal, dead_letters, redrive
from consumer_service.settings import Settings
from proto.events import DEAD_LETTER_QUEUE, EXCHANGE
from service_kit import cli
from service_kit.rabbitmq.connection import open_connection

REHEARSED_AT_ONCE = 250
NAME = "dead_letters"
_REDRIVEN = "redriven"

Chosen = Callable[[DeadLetter], bool]

OfOrder = Annotated[str | None, typer.Option("--order", help="Only those about this order.")]
ForReason = Annotated[
    str | None, typer.Option("--reason", help="Only those whose reason has this in it.")
]
Limit = Annotated[int, typer.Option(min=1, help="Look at so many of the queue at most.")]

commands = typer.Typer()
dead_letter_commands = typer.Typer(help="Messages that could not be handled.", no_args_is_help=True)
commands.add_typer(dead_letter_commands, name="dead-letters")


@dead_letter_commands.command("list")
def list_letters(
    order: OfOrder = None,
    reason: ForReason = None,
    limit: Limit = 1_000,
    env_file: cli.EnvFile = None,
) -> None:
    """Show the dead letters, oldest first, each with its reason; they stay where they are."""
    settings = cli.load_settings(Settings, env_file)
    rows, left = cli.run(_list(settings, _matching([], order, reason), limit))
    if rows:
        cli.print_table(("Event", "Type", "Order", "Since", "Reason"), rows)
    cli.stdout.print(_summary(len(rows), left))


@dead_letter_commands.command("redrive")
def redrive_letters(
    event_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[EVENT]...", help="Ids of events.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    order: OfOrder = None,
    reason: ForReason = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what each would do, and roll it back.")
    ] = False,
    limit: Limit = 100_000,
    env_file: cli.EnvFile = None,
) -> None:
    """Give dead letters back to the consumer, each under its own event id.

    Exit code 1 if some of those named are not there or cannot be published.
    """
    if not (event_ids or everything or order or reason):
        raise typer.BadParameter("name events, or give --order, --reason or --all")
    settings = cli.load_settings(Settings, env_file)
    chosen = _matching(event_ids or [], order, reason)
    rows: Rows = []
    try:
        cli.run((_rehearse if dry_run else _redrive)(settings, chosen, limit, rows))
    finally:
        # Also if the broker failed half-way: what was done is done.
        refused = _tell(rows, dry_run=dry_run)
    missing = set(event_ids or []) - {row[0] for row in rows}
    for event_id in sorted(missing):
        cli.stdout.print(f"not in the queue: {event_id}", markup=False)
    if missing or refused:
        raise typer.Exit(cli.FOUND_SOMETHING)


Rows = list[tuple[str, ...]]


def _tell(rows: Rows, *, dry_run: bool) -> int:
    """Print what was done, or would be; returns how many were refused."""
    if rows:
        cli.print_table(("Event", "Type", "Order", "Would" if dry_run else "Result"), rows)
    refused = 0 if dry_run else sum(row[-1] != _REDRIVEN for row in rows)
    done = f"{len(rows) - refused} redriven, {refused} refused"
    cli.stdout.print("nothing was changed" if dry_run else done)
    return refused


def _matching(event_ids: Sequence[str], order: str | None, reason: str | None) -> Chosen:
    wanted = set(event_ids)
    return lambda letter: (
        (not wanted or letter.event_id in wanted)
        and (order is None or letter.order_id == order)
        and (reason is None or reason in letter.reason)
    )


async def _list(settings: Settings, chosen: Chosen, limit: int) -> tuple[Rows, int]:
    async with AsyncExitStack() as stack:
        channel = await _open_channel(stack, settings)
        letters = await _in_hand(channel, chosen, limit)
        left = await _waiting(channel)
        return [
            (
                letter.event_id,
                letter.type,
                letter.order_id,
                f"{letter.since:%Y-%m-%d %H:%M:%S}" if letter.since else "",
                letter.reason,
            )
            for letter in letters
        ], left


async def _redrive(settings: Settings, chosen: Chosen, limit: int, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        channel = await _open_channel(stack, settings)
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        letters = await _in_hand(channel, chosen, limit)
        with cli.progress("redriving", len(letters)) as advance:
            for letter in letters:
                refusal = await redrive(exchange, letter)
                rows.append((*_named(letter), refusal or _REDRIVEN))
                advance(1)


async def _rehearse(settings: Settings, chosen: Chosen, limit: int, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stock = await enter(open_inventory_channel(settings.inventory_service_addr))
        orders = await enter(open_order_channel(settings.order_service_addr))
        rehearsal = Rehearsal(stock, orders)
        letters = await _in_hand(await _open_channel(stack, settings), chosen, limit)
        with cli.progress("rehearsing", len(letters)) as advance:
            for start in range(0, len(letters), REHEARSED_AT_ONCE):
                batch = letters[start : start + REHEARSED_AT_ONCE]
                results = await rehearsal.results(batch)
                rows += [
                    (*_named(letter), told) for letter, told in zip(batch, results, strict=True)
                ]
                advance(len(batch))


async def _open_channel(stack: AsyncExitStack, settings: Settings) -> AbstractChannel:
    connection = await stack.enter_async_context(open_connection(settings.rabbitmq_url, NAME))
    return await connection.channel(publisher_confirms=True, on_return_raises=True)


async def _in_hand(channel: AbstractChannel, chosen: Chosen, limit: int) -> list[DeadLetter]:
    total = await _waiting(channel)
    letters = []
    with cli.progress("reading", min(limit, total)) as advance:
        async for letter in dead_letters(channel, limit):
            advance(1)
            if chosen(letter):
                letters.append(letter)
    return letters


async def _waiting(channel: AbstractChannel) -> int:
    declared = await channel.declare_queue(DEAD_LETTER_QUEUE, passive=True)
    return declared.declaration_result.message_count or 0


def _named(letter: DeadLetter) -> tuple[str, str, str]:
    return letter.event_id, letter.type, letter.order_id


def _summary(shown: int, left: int) -> str:
    return f"{shown} shown" + (f", {left} more were not looked at" if left else "")
