"""Shows what redriving dead letters would do, by handling them and rolling everything back."""

import asyncio
from collections.abc import Mapping, Sequence

from consumer_service.clients import InventoryClient, OrderClient
from consumer_service.cloud_events import read_event
from consumer_service.dead_letters.letters import DeadLetter
from consumer_service.domain import EventResult, OrderEvent, PoisonMessage, StockUpdateResult
from consumer_service.operations import handle_events
from proto.stock import ReservationState, StockUpdateKind, StockUpdateOutcome
from service_kit.context import CallContext
from service_kit.errors import Unavailable

DRY_RUN_SECONDS = 30.0
MAX_LETTERS = 250
"""Letters of one dry run; they are handled as one batch."""

_NO_STOCK_MOVES = "no stock moves"


class DryRun:
    """Handles events with the consumer's own operation and clients that only validate."""

    def __init__(self, inventory: InventoryClient, orders: OrderClient) -> None:
        """Both clients must be `validate_only`."""
        self._inventory = inventory
        self._orders = orders

    async def effects(self, letters: Sequence[DeadLetter]) -> list[str]:
        """What redriving each letter would do if they arrived in this order.

        At most MAX_LETTERS. Raises Unavailable if a dependency does not respond.
        """
        events: dict[int, OrderEvent] = {}
        effects: dict[int, str] = {}
        for position, letter in enumerate(letters):
            try:
                events[position] = read_event(letter.message.body, CallContext())
            except PoisonMessage as error:
                effects[position] = _dead_again(error)
        if events:
            described = await self._handle(list(events.values()))
            effects.update(zip(events, described, strict=True))
        return [effects[position] for position in range(len(letters))]

    async def _handle(self, events: Sequence[OrderEvent]) -> list[str]:
        try:
            async with asyncio.timeout(DRY_RUN_SECONDS):
                before = await self._inventory.get_reservations([each.order_id for each in events])
                results = await handle_events(self._inventory, self._orders, events)
        except TimeoutError as error:
            raise Unavailable("UNAVAILABLE", "inventory or orders do not respond") from error
        return [
            _effect(event, result, before.get(event.order_id))
            for event, result in zip(events, results, strict=True)
        ]


def _dead_again(error: PoisonMessage) -> str:
    return f"dead again: {error}"


def _effect(event: OrderEvent, result: EventResult, before: ReservationState | None) -> str:
    if result.poison is not None:
        return _dead_again(result.poison)
    effect = _stock_effect(event, result.stock, before) if result.stock else _NO_STOCK_MOVES
    if result.order_status is not None:
        effect += f"; the order is then {result.order_status}"
    return effect


def _stock_effect(
    event: OrderEvent, result: StockUpdateResult, before: ReservationState | None
) -> str:
    if event.kind is StockUpdateKind.RESTORE:
        restores = before is ReservationState.DEDUCTED
        return "restores the order's stock" if restores else _NO_STOCK_MOVES
    if before is not None:
        return f"{_NO_STOCK_MOVES}: {before} before"
    if result.outcome is StockUpdateOutcome.APPLIED:
        return f"deducts {_quantities(event.items)}"
    if result.outcome is StockUpdateOutcome.INSUFFICIENT_STOCK:
        shortages = ", ".join(
            f"product {each.product_id} has {each.available} of {each.requested}"
            for each in result.shortages
        )
        return f"{_NO_STOCK_MOVES}: {shortages}"
    return f"{_NO_STOCK_MOVES}: {result.outcome}"


def _quantities(items: Mapping[int, int]) -> str:
    return ", ".join(f"{quantity} of product {product}" for product, quantity in items.items())
