"""Every step that one order took, put together from the data that the services keep anyway."""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from order_service import storage
from order_service.audit import Books
from order_service.models import Order, Reservation, Shortage, outbox
from service_kit.errors import NotFound
from service_kit.postgres.engine import AnyRow, autocommit

_DECISIONS = {
    "DEDUCTED": "enough stock",
    "RESTORED": "enough stock",
    "REJECTED": "too little stock",
    "CANCELLED": "cancelled before anything was taken",
}
_MOVES = {"DEDUCT": "taken", "RESTORE": "given back"}


@dataclass(frozen=True, slots=True)
class Step:
    """What happened, where and when."""

    at: dt.datetime
    where: str
    what: str
    detail: str = ""


async def trace(books: Books, order_id: uuid.UUID) -> list[Step]:
    """The steps of an order by time; NotFound if there is none.

    Events are told for as long as the outbox keeps them.
    """
    async with autocommit(books.engine) as connection:
        found = await storage.load_orders(connection, [order_id], history=True)
        if order_id not in found:
            raise NotFound("ORDER_NOT_FOUND", f"there is no order {order_id}")
        events = await connection.execute(select(outbox).where(outbox.c.order_id == order_id))
        steps = [*_of_order(found[order_id])]
        for event in events:
            steps += _of_event(event)
    reservation = (await books.inventory.reservations([order_id])).get(order_id)
    if reservation is not None:
        steps += _of_reservation(reservation)
    return sorted(steps, key=lambda step: step.at)


def _of_order(order: Order) -> Iterator[Step]:
    bought = ", ".join(f"{item.quantity} of product {item.product_id}" for item in order.items)
    placed = f"by user {order.user_id}: {bought}; {order.total_cents / 100:.2f} in all"
    for change in order.history:
        detail = {"PENDING": placed, "REJECTED": _short(order.shortages)}.get(change.status, "")
        request = f"request {change.request_id}" if change.request_id else ""
        detail = "; ".join(filter(None, (detail, request)))
        yield Step(change.changed_at, "order", change.status, detail)


def _of_event(event: AnyRow) -> Iterator[Step]:
    request = f", request {event.request_id}" if event.request_id else ""
    yield Step(event.created_at, "outbox", f"{event.type} stored", f"event {event.id}{request}")
    if event.sent_at is not None:
        yield Step(event.sent_at, "broker", f"{event.type} confirmed", f"event {event.id}")
    elif event.last_error:
        again = event.next_attempt_at or event.created_at
        what = f"{event.type} refused {event.attempts} times, goes out again"
        yield Step(again, "broker", what, event.last_error)


def _of_reservation(found: Reservation) -> Iterator[Step]:
    yield Step(found.decided_at, "inventory", _DECISIONS[found.state], _short(found.shortages))
    for move in found.movements:
        what = f"stock {_MOVES.get(move.kind, move.kind)}"
        yield Step(move.moved_at, "ledger", what, f"{abs(move.delta)} of product {move.product_id}")


def _short(shortages: Sequence[Shortage]) -> str:
    return ", ".join(
        f"product {short.product_id} had {short.available} of {short.requested}"
        for short in shortages
    )
