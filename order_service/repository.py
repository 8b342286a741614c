"""SQL of orders: many orders in one statement, each statement atomic on its own."""

import datetime as dt
import uuid
from collections.abc import Collection, Iterable, Sequence

import orjson
from sqlalchemy import ARRAY, Uuid, bindparam, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from order_service import statements
from order_service.domain import (
    IdempotencyKey,
    IdempotencyRecord,
    NewOrder,
    Order,
    OrderItem,
    OrderStatus,
    OutboxEvent,
    StatusChange,
)
from order_service.tables import order_items, order_status_history, orders
from proto.stock import Shortage
from service_kit.postgres.engine import AnyRow

_ANY_ORDER = bindparam("ids", type_=ARRAY(Uuid)).any_()
_ORDERS = select(
    orders.c.id,
    orders.c.user_id,
    orders.c.status,
    orders.c.total_cents,
    orders.c.shortages,
    orders.c.created_at,
    orders.c.updated_at,
).where(orders.c.id == _ANY_ORDER)
_ITEMS = (
    select(order_items)
    .where(order_items.c.order_id == _ANY_ORDER)
    .order_by(order_items.c.order_id, order_items.c.position)
)
_HISTORY = (
    select(order_status_history)
    .where(order_status_history.c.order_id == _ANY_ORDER)
    .order_by(order_status_history.c.changed_at)
)


async def insert_orders(
    connection: AsyncConnection, new: Collection[NewOrder], next_republish_at: dt.datetime
) -> set[uuid.UUID]:
    """Store orders, items, history and events; returns the ids stored.

    An order whose (user, idempotency key) is taken is left out. All were created at one time.
    """
    # By ascending key: batches with the same keys wait for each other and cannot deadlock.
    new = sorted(new, key=lambda each: (each.order.user_id, each.request.idempotency_key))
    items = [
        (order.id, position, item) for order, *_ in new for position, item in enumerate(order.items)
    ]
    rows = await connection.scalars(
        statements.INSERT_ORDERS,
        {
            "ids": [each.order.id for each in new],
            "user_ids": [each.order.user_id for each in new],
            "totals": [each.order.total_cents for each in new],
            "keys": [each.request.idempotency_key or None for each in new],
            "fingerprints": [
                each.request.fingerprint() if each.request.idempotency_key else None for each in new
            ],
            "next_republish_at": next_republish_at,
            "now": new[0].order.created_at,
            "item_orders": [order_id for order_id, _, _ in items],
            "positions": [position for _, position, _ in items],
            "product_ids": [item.product_id for _, _, item in items],
            "names": [item.name for _, _, item in items],
            "quantities": [item.quantity for _, _, item in items],
            "prices": [item.unit_price_cents for _, _, item in items],
            **_event_parameters([each.event for each in new]),
        },
    )
    return set(rows)


async def settle_orders(
    connection: AsyncConnection,
    settled: Iterable[Order],
    events: Sequence[OutboxEvent],
    now: dt.datetime,
) -> set[uuid.UUID]:
    """Give those that are still PENDING their new status, with their events; returns their ids."""
    ordered = sorted(settled, key=lambda order: order.id)
    rows = await connection.scalars(
        statements.SETTLE_ORDERS,
        {
            "ids": [each.id for each in ordered],
            "statuses": [each.status for each in ordered],
            "shortages": [
                orjson.dumps(each.shortages).decode() if each.shortages else None
                for each in ordered
            ],
            "now": now,
            **_event_parameters(events),
        },
    )
    return set(rows)


async def release_orders(connection: AsyncConnection, order_ids: Sequence[uuid.UUID]) -> None:
    """Record that inventory has answered the cancellation of these orders."""
    await connection.execute(statements.RELEASE_ORDERS, {"ids": order_ids})


async def cancel_order(
    connection: AsyncConnection,
    event: OutboxEvent,
    now: dt.datetime,
    next_republish_at: dt.datetime,
) -> None:
    """Cancel the event's order if its status still allows it."""
    parameters = {
        "id": event.order_id,
        "now": now,
        "next_republish_at": next_republish_at,
        **_event_parameters([event]),
    }
    await connection.execute(statements.CANCEL_ORDER, parameters)


async def defer_overdue(
    connection: AsyncConnection,
    *,
    interval_seconds: float,
    fixed_interval_attempts: int,
    max_interval_seconds: float,
    max_unanswered: int,
) -> list[uuid.UUID]:
    """Overdue orders whose event was sent; all overdue orders are rescheduled.

    The interval doubles after `fixed_interval_attempts`. Orders that were returned before come
    first; others only as long as fewer than `max_unanswered` of those have no answer.
    """
    parameters: dict[str, object] = {
        "interval_seconds": interval_seconds,
        "fixed_interval_attempts": fixed_interval_attempts,
        "max_interval_seconds": max_interval_seconds,
        "max_unanswered": max_unanswered,
    }
    return list(await connection.scalars(statements.DEFER_OVERDUE, parameters))


async def load_orders(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID], *, history: bool = False
) -> dict[uuid.UUID, Order]:
    """The orders that exist, by id, with their items."""
    ids = {"ids": list(order_ids)}
    items: dict[uuid.UUID, list[OrderItem]] = {order_id: [] for order_id in order_ids}
    changes: dict[uuid.UUID, list[StatusChange]] = {order_id: [] for order_id in order_ids}
    rows = (await connection.execute(_ORDERS, ids)).all()
    for row in await connection.execute(_ITEMS, ids):
        items[row.order_id].append(
            OrderItem(row.product_id, row.name, row.quantity, row.unit_price_cents)
        )
    if history:
        for row in await connection.execute(_HISTORY, ids):
            changes[row.order_id].append(
                StatusChange(OrderStatus(row.status), row.changed_at, row.request_id or "")
            )
    return {row.id: _order(row, items[row.id], changes[row.id]) for row in rows}


async def load_headers(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Order]:
    """The orders that exist, by id, without their items."""
    rows = await connection.execute(_ORDERS, {"ids": list(order_ids)})
    return {row.id: _order(row, ()) for row in rows}


async def list_ids(
    connection: AsyncConnection,
    *,
    user_id: int,
    status: OrderStatus | None,
    before: uuid.UUID | None,
    limit: int,
) -> list[uuid.UUID]:
    """Ids of orders by descending id: of one user (0: all), in one status, below `before`."""
    statement = select(orders.c.id).order_by(orders.c.id.desc()).limit(limit)
    if user_id:
        statement = statement.where(orders.c.user_id == user_id)
    if status is not None:
        statement = statement.where(orders.c.status == status)
    if before is not None:
        statement = statement.where(orders.c.id < before)
    return list(await connection.scalars(statement))


async def find_idempotency_records(
    connection: AsyncConnection, keys: Sequence[IdempotencyKey]
) -> dict[IdempotencyKey, IdempotencyRecord]:
    """The orders that are stored under these (user, idempotency key) pairs."""
    statement = select(
        orders.c.user_id, orders.c.idempotency_key, orders.c.id, orders.c.fingerprint
    ).where(tuple_(orders.c.user_id, orders.c.idempotency_key).in_(keys))
    rows = (await connection.execute(statement)).all()
    found = await load_orders(connection, [row.id for row in rows]) if rows else {}
    return {
        (row.user_id, str(row.idempotency_key)): IdempotencyRecord(
            found[row.id], bytes(row.fingerprint or b"")
        )
        for row in rows
    }


def _event_parameters(events: Sequence[OutboxEvent]) -> dict[str, object]:
    return {
        "event_ids": [event.id for event in events],
        "event_orders": [event.order_id for event in events],
        "event_types": [event.type for event in events],
        "bodies": [event.body for event in events],
        "request_ids": [event.context.request_id for event in events],
        "traceparents": [event.context.traceparent for event in events],
    }


def _order(row: AnyRow, items: Sequence[OrderItem], history: Sequence[StatusChange] = ()) -> Order:
    return Order(
        id=row.id,
        user_id=row.user_id,
        status=OrderStatus(row.status),
        items=items,
        total_cents=row.total_cents,
        created_at=row.created_at,
        updated_at=row.updated_at,
        shortages=[Shortage(**short) for short in row.shortages or ()],
        history=history,
    )
