"""What consumer_service does with events: update stock, settle orders, name the poison."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from consumer_service.clients import InventoryClient, OrderClient
from consumer_service.models import Kind, OrderEvent, PoisonError, StockOutcome
from service_kit.context import CallContext, bound
from service_kit.errors import TRANSIENT_CODES, Code, ServiceError
from service_kit.pacing import retry_forever

T = TypeVar("T")

FAULT_ATTEMPTS = 5
"""A neighbour's fault (INTERNAL and the like) is tried so often before it counts as poison."""


async def handle(
    inventory: InventoryClient, orders: OrderClient, events: Sequence[OrderEvent]
) -> dict[int, PoisonError]:
    """Apply events to stock and settle their orders; waits for neighbours that are away.

    Returns the events that can never be handled, by position; all others are done with.
    """
    try:
        # Calls for one event are its caller's, so the neighbours' logs name the request. Those
        # for many are nobody's, but one at fault is soon called for by itself.
        with bound(events[0].caller if len(events) == 1 else CallContext()):
            return await _handle(inventory, orders, events)
    except ServiceError as error:
        if len(events) == 1:
            return {0: PoisonError(error.reason.lower(), error.message)}
    # One of them is at fault: find out which, so that the others go on.
    poison: dict[int, PoisonError] = {}
    for position, event in enumerate(events):
        if found := await handle(inventory, orders, [event]):
            poison[position] = found[0]
    return poison


async def _handle(
    inventory: InventoryClient, orders: OrderClient, events: Sequence[OrderEvent]
) -> dict[int, PoisonError]:
    answers = await _answered(lambda: inventory.update_stock(events))
    poison = {
        position: PoisonError("unknown_product", str(list(answer.unknown_product_ids)))
        for position, answer in enumerate(answers)
        if answer.outcome is StockOutcome.UNKNOWN_PRODUCT
    }
    settlements = [
        (position, (event, verdict, answer.shortages))
        for position, (event, answer) in enumerate(zip(events, answers, strict=True))
        if (verdict := answer.verdict(event.kind)) is not None
    ]
    if settlements:
        known = await _answered(lambda: orders.settle([each for _, each in settlements]))
        strangers = [
            position for (position, _), found in zip(settlements, known, strict=True) if not found
        ]
        if strangers:
            await _give_back(inventory, [events[position] for position in strangers])
        for position in strangers:
            poison[position] = PoisonError("unknown_order", str(events[position].order_id))
    return poison


async def _give_back(inventory: InventoryClient, events: Sequence[OrderEvent]) -> None:
    """Undo what was taken for orders that nobody placed."""
    restores = [replace(event, kind=Kind.RESTORE) for event in events]
    await _answered(lambda: inventory.update_stock(restores))


async def _answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer; raises the ServiceError of one who is at fault."""
    faults = 0

    def passes(error: Exception) -> bool:
        nonlocal faults
        if not isinstance(error, ServiceError) or error.code is Code.INVALID_ARGUMENT:
            return False
        faults += error.code not in TRANSIENT_CODES
        return faults < FAULT_ATTEMPTS

    async for attempt in retry_forever("call a dependency", passes):
        with attempt:
            return await ask()
    raise AssertionError  # pragma: no cover - the context either returns or raises
