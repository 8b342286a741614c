"""The timeline of one order, from the data that the services keep anyway."""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.consistency.clients import ReservationClient
from order_service.consistency.domain import Reservation
from order_service.domain import Order, OrderStatus
from order_service.outbox.repository import OutboxEntry, entries_of
from order_service.repository import load_orders
from proto.dead_letters import dead_since, order_id_of, reason_of
from proto.events import DEAD_LETTER_QUEUE
from proto.stock import ReservationState, Shortage, StockMovementKind
from service_kit.errors import NotFound
from service_kit.postgres.engine import autocommit
from service_kit.rabbitmq.connection import open_connection
from service_kit.rabbitmq.consume import browse_queue

MAX_DEAD_LETTERS = 1_000

_DECISIONS = {
    ReservationState.DEDUCTED: "sufficient stock",
    ReservationState.RESTORED: "sufficient stock",
    ReservationState.REJECTED: "insufficient stock",
    ReservationState.CANCELLED: "cancelled before stock was deducted",
}
_MOVEMENTS = {
    StockMovementKind.DEDUCT: "stock deducted",
    StockMovementKind.RESTORE: "stock restored",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What happened, where and when."""

    at: dt.datetime
    where: str
    what: str
    detail: str = ""


async def timeline(
    engine: AsyncEngine, inventory: ReservationClient, order_id: uuid.UUID
) -> list[Step]:
    """The steps of an order by time; NotFound if it does not exist.

    Events are included for as long as the outbox keeps them.
    """
    async with autocommit(engine) as connection:
        order = (await load_orders(connection, [order_id], history=True)).get(order_id)
        if order is None:
            raise NotFound("ORDER_NOT_FOUND", f"Order {order_id} does not exist.")
        entries = await entries_of(connection, order_id)
    steps = [*_of_order(order)]
    for entry in entries:
        steps += _of_event(entry)
    reservation = (await inventory.reservations([order_id])).get(order_id)
    if reservation is not None:
        steps += _of_reservation(reservation)
    return sorted(steps, key=lambda step: step.at)


async def dead_letter_steps(broker_url: str, order_id: uuid.UUID) -> list[Step]:
    """The events of an order that are dead letters; Unavailable if the broker is unavailable.

    Of the dead letters the oldest MAX_DEAD_LETTERS are searched.
    """
    async with open_connection(broker_url, "order_timeline") as connection:
        channel = await connection.channel()
        return [
            Step(
                dead_since(message.headers) or dt.datetime.now(dt.UTC),
                "consumer",
                f"{message.routing_key} is a dead letter",
                f"{reason_of(message.headers)}, event {message.message_id}",
            )
            async for message in browse_queue(channel, DEAD_LETTER_QUEUE, MAX_DEAD_LETTERS)
            if order_id_of(message.body) == str(order_id)
        ]


def _of_order(order: Order) -> Iterator[Step]:
    items = ", ".join(f"{item.quantity} of product {item.product_id}" for item in order.items)
    total = f"{order.total_cents // 100}.{order.total_cents % 100:02}"
    details = {
        OrderStatus.PENDING: f"by user {order.user_id}: {items}; total {total}",
        OrderStatus.REJECTED: _shortages(order.shortages),
    }
    for change in order.history:
        request = f"request {change.request_id}" if change.request_id else ""
        detail = "; ".join(filter(None, (details.get(change.status), request)))
        yield Step(change.changed_at, "order", change.status, detail)


def _of_event(entry: OutboxEntry) -> Iterator[Step]:
    request = f", request {entry.request_id}" if entry.request_id else ""
    yield Step(entry.created_at, "outbox", f"{entry.type} stored", f"event {entry.id}{request}")
    if entry.sent_at is not None:
        yield Step(entry.sent_at, "broker", f"{entry.type} published", f"event {entry.id}")
    elif entry.last_error:
        due = entry.next_attempt_at or entry.created_at
        what = f"{entry.type} refused, attempt {entry.attempts + 1} due"
        yield Step(due, "broker", what, entry.last_error)


def _of_reservation(found: Reservation) -> Iterator[Step]:
    yield Step(found.decided_at, "inventory", _DECISIONS[found.state], _shortages(found.shortages))
    for each in found.movements:
        detail = f"{abs(each.delta)} of product {each.product_id}"
        yield Step(each.moved_at, "ledger", _MOVEMENTS[each.kind], detail)


def _shortages(shortages: Sequence[Shortage]) -> str:
    return ", ".join(
        f"product {short.product_id}: {short.requested} requested, {short.available} available"
        for short in shortages
    )
