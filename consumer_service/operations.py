"""What consumer_service does with order events: update stock, settle orders."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from consumer_service.clients import InventoryClient, OrderClient
from consumer_service.domain import (
    EventResult,
    OrderEvent,
    PoisonMessage,
    Settlement,
    StockUpdateResult,
    settlement_for,
)
from proto.stock import StockUpdateKind, StockUpdateOutcome
from service_kit.context import CallContext, bound
from service_kit.errors import TRANSIENT_CODES, Code, ServiceError
from service_kit.pacing import retry_forever

T = TypeVar("T")

MAX_INTERNAL_ERRORS = 6
"""A call that a dependency fails this often, other than transiently, is given up: after 3 s."""


async def handle_events(
    inventory: InventoryClient, orders: OrderClient, events: Sequence[OrderEvent]
) -> list[EventResult]:
    """Apply events to stock and settle their orders; one result per event, in their order.

    While a dependency is unavailable, the call to it is repeated. Events may be handled again.
    """
    # A call for one event has its context, so that dependencies log its request id. A call for
    # many has none, but an event that fails is soon called for separately.
    context = events[0].context if len(events) == 1 else CallContext()
    try:
        with bound(context):
            return await _handle_together(inventory, orders, events)
    except ServiceError as error:
        if len(events) == 1:
            return [EventResult(poison=PoisonMessage(error.reason.lower(), error.message))]
    # One of them makes the call fail: handled one by one, the others succeed.
    return [(await handle_events(inventory, orders, [event]))[0] for event in events]


async def _handle_together(
    inventory: InventoryClient, orders: OrderClient, events: Sequence[OrderEvent]
) -> list[EventResult]:
    stock = await _call("update stock", lambda: inventory.update_stock(events))
    settlements = {
        position: settlement
        for position, (event, result) in enumerate(zip(events, stock, strict=True))
        if (settlement := settlement_for(event, result)) is not None
    }
    statuses = await _settle(orders, settlements)
    unknown = {position for position, status in statuses.items() if status is None}
    if unknown:
        await _restore_stock(inventory, [events[position] for position in unknown])
    return [
        EventResult(
            result, statuses.get(position), _poison(event, result, unknown=position in unknown)
        )
        for position, (event, result) in enumerate(zip(events, stock, strict=True))
    ]


async def _settle(
    orders: OrderClient, settlements: Mapping[int, Settlement]
) -> dict[int, str | None]:
    """The orders' statuses by the positions of their settlements; None for an unknown order."""
    if not settlements:
        return {}
    wanted = list(settlements.values())
    statuses = await _call("settle orders", lambda: orders.settle_orders(wanted))
    return dict(zip(settlements, statuses, strict=True))


async def _restore_stock(inventory: InventoryClient, events: Sequence[OrderEvent]) -> None:
    """Restore what was deducted for orders that do not exist."""
    restores = [replace(event, kind=StockUpdateKind.RESTORE) for event in events]
    await _call("restore stock", lambda: inventory.update_stock(restores))


def _poison(event: OrderEvent, result: StockUpdateResult, *, unknown: bool) -> PoisonMessage | None:
    if result.outcome is StockUpdateOutcome.UNKNOWN_PRODUCT:
        return PoisonMessage("unknown_product", str(list(result.unknown_product_ids)))
    if unknown:
        return PoisonMessage("unknown_order", str(event.order_id))
    return None


async def _call(task: str, call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call until it succeeds; raises the ServiceError of one that never will."""
    internal_errors = 0

    def is_retryable(error: Exception) -> bool:
        nonlocal internal_errors
        if not isinstance(error, ServiceError) or error.code is Code.INVALID_ARGUMENT:
            return False
        internal_errors += error.code not in TRANSIENT_CODES
        return internal_errors < MAX_INTERNAL_ERRORS

    async for attempt in retry_forever(task, is_retryable):
        with attempt:
            return await call()
    raise AssertionError  # pragma: no cover - the loop ends by returning or raising
