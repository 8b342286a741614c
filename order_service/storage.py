"""Reads and writes of orders: many in one statement, each statement atomic by itself."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import (
    ARRAY,
    Uuid,
    bindparam,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from order_service.events import OutboxEvent
from order_service.models import (
    Draft,
    Item,
    Order,
    Shortage,
    Status,
    StatusChange,
    StoredKey,
    order_items,
    order_status_history,
    orders,
)
from order_service.outbox import INSERT_EVENTS, event_parameters
from service_kit.postgres.engine import AnyRow

_INSERT = text(f"""
WITH stored AS (
    INSERT INTO orders (id, user_id, status, total_cents, idempotency_key, fingerprint,
                        next_offer_at, created_at, updated_at)
    SELECT wanted.id, wanted.user_id, 'PENDING', wanted.total_cents, wanted.key,
           wanted.fingerprint, CAST(:next_offer_at AS timestamptz),
           CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:user_ids AS bigint[]), CAST(:totals AS bigint[]),
        CAST(:keys AS text[]), CAST(:fingerprints AS bytea[])
    ) AS wanted (id, user_id, total_cents, key, fingerprint)
    ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id
), items AS (
    INSERT INTO order_items (order_id, position, product_id, name, quantity, unit_price_cents)
    SELECT item.* FROM unnest(
        CAST(:item_orders AS uuid[]), CAST(:positions AS smallint[]),
        CAST(:product_ids AS bigint[]), CAST(:names AS text[]),
        CAST(:quantities AS bigint[]), CAST(:prices AS bigint[])
    ) AS item (order_id, position, product_id, name, quantity, unit_price_cents)
    JOIN stored ON stored.id = item.order_id
), events AS (
    {INSERT_EVENTS} JOIN stored ON stored.id = event.order_id RETURNING order_id, request_id
), history AS (
    INSERT INTO order_status_history (order_id, status, changed_at, request_id)
    SELECT order_id, 'PENDING', CAST(:now AS timestamptz), nullif(request_id, '') FROM events
)
SELECT id FROM stored
""")  # noqa: S608 - built of constants

# Locked by ascending id, so that settlements of the same orders wait and cannot deadlock.
_SETTLE = text(f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM orders WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'PENDING'
    ORDER BY id FOR UPDATE
), settled AS (
    UPDATE orders SET status = wanted.status, shortages = CAST(wanted.shortages AS jsonb),
                      next_offer_at = NULL, updated_at = CAST(:now AS timestamptz)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:statuses AS text[]), CAST(:shortages AS text[])
    ) AS wanted (id, status, shortages)
    JOIN locked ON locked.id = wanted.id
    WHERE orders.id = wanted.id
    RETURNING orders.id, orders.status
), events AS (
    {INSERT_EVENTS} JOIN settled ON settled.id = event.order_id RETURNING order_id, request_id
), history AS (
    INSERT INTO order_status_history (order_id, status, changed_at, request_id)
    SELECT id, status, CAST(:now AS timestamptz), nullif(request_id, '')
    FROM settled LEFT JOIN events ON events.order_id = settled.id
)
SELECT id FROM settled
""")  # noqa: S608 - built of constants

_RELEASE = text(
    "UPDATE orders SET next_offer_at = NULL"
    " WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'CANCELLED'"
)

_CANCEL = text(f"""
WITH cancelled AS (
    UPDATE orders SET status = 'CANCELLED', offers = 0, updated_at = CAST(:now AS timestamptz),
                      next_offer_at = CAST(:next_offer_at AS timestamptz)
    WHERE id = CAST(:id AS uuid) AND status IN ('PENDING', 'CONFIRMED')
    RETURNING id
), events AS (
    {INSERT_EVENTS} JOIN cancelled ON cancelled.id = event.order_id RETURNING order_id, request_id
), history AS (
    INSERT INTO order_status_history (order_id, status, changed_at, request_id)
    SELECT order_id, 'CANCELLED', CAST(:now AS timestamptz), nullif(request_id, '') FROM events
)
SELECT id FROM cancelled
""")  # noqa: S608 - built of constants

STEADY_OFFERS = 12
"""Offers in equal pauses, about four minutes by default; the pauses after them double."""

# Rows another sweeper holds are skipped. An order whose event is still unsent needs no second one.
_POSTPONE_OVERDUE = text(f"""
WITH again AS (
    SELECT id FROM orders WHERE next_offer_at <= now() AND offers > 0
    ORDER BY next_offer_at LIMIT :limit FOR UPDATE SKIP LOCKED
), anew AS (
    SELECT id FROM orders WHERE next_offer_at <= now() AND offers = 0
    ORDER BY next_offer_at LIMIT greatest(0, :limit - (
        SELECT count(*) FROM orders
        WHERE next_offer_at IS NOT NULL AND offers > 0 AND offers <= {STEADY_OFFERS}))
    FOR UPDATE SKIP LOCKED
), overdue AS (
    SELECT id, EXISTS (
        SELECT FROM outbox WHERE outbox.order_id = either.id AND outbox.sent_at IS NULL) AS unsent
    FROM (SELECT id FROM again UNION ALL SELECT id FROM anew) AS either
), postponed AS (
    UPDATE orders SET
        offers = offers + CASE WHEN unsent THEN 0 ELSE 1 END,
        next_offer_at = now() + least(
            make_interval(secs => CAST(:seconds AS double precision))
                * power(2, greatest(1, least(offers, 40) - {STEADY_OFFERS - 1})),
            interval '1 hour')
    FROM overdue WHERE orders.id = overdue.id
)
SELECT id FROM overdue WHERE NOT unsent
""")  # noqa: S608 - built of constants

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


class NewOrder(NamedTuple):
    """An order to store, what it was made of, and its event."""

    order: Order
    draft: Draft
    event: OutboxEvent


async def insert_orders(
    connection: AsyncConnection, new: Sequence[NewOrder], next_offer_at: dt.datetime
) -> set[uuid.UUID]:
    """Store orders, items, history and events; returns the ids stored.

    An order whose (user, key) is taken is left out.
    """
    # By ascending key: batches with the same keys wait for each other and cannot deadlock.
    new = sorted(new, key=lambda each: (each.order.user_id, each.draft.idempotency_key))
    items = [
        (order.id, position, item) for order, *_ in new for position, item in enumerate(order.items)
    ]
    rows = await connection.scalars(
        _INSERT,
        {
            "ids": [each.order.id for each in new],
            "user_ids": [each.order.user_id for each in new],
            "totals": [each.order.total_cents for each in new],
            "keys": [each.draft.idempotency_key or None for each in new],
            "fingerprints": [
                each.draft.fingerprint() if each.draft.idempotency_key else None for each in new
            ],
            "next_offer_at": next_offer_at,
            "now": new[0].order.created_at,
            "item_orders": [order_id for order_id, _, _ in items],
            "positions": [position for _, position, _ in items],
            "product_ids": [item.product_id for _, _, item in items],
            "names": [item.name for _, _, item in items],
            "quantities": [item.quantity for _, _, item in items],
            "prices": [item.unit_price_cents for _, _, item in items],
            **event_parameters([each.event for each in new]),
        },
    )
    return set(rows)


async def settle(
    connection: AsyncConnection,
    settled: Sequence[Order],
    events: Sequence[OutboxEvent],
    now: dt.datetime,
) -> set[uuid.UUID]:
    """Move those that are still PENDING to the status given, with their events; their ids."""
    ordered = sorted(settled, key=lambda order: order.id)
    rows = await connection.scalars(
        _SETTLE,
        {
            "ids": [each.id for each in ordered],
            "statuses": [each.status for each in ordered],
            "shortages": [
                orjson.dumps(each.shortages).decode() if each.shortages else None
                for each in ordered
            ],
            "now": now,
            **event_parameters(events),
        },
    )
    return set(rows)


async def release(connection: AsyncConnection, order_ids: Sequence[uuid.UUID]) -> None:
    """Note that nothing is outstanding any more for these cancelled orders."""
    await connection.execute(_RELEASE, {"ids": order_ids})


async def cancel(
    connection: AsyncConnection, event: OutboxEvent, now: dt.datetime, next_offer_at: dt.datetime
) -> bool:
    """Cancel the event's order if its status still allows it."""
    parameters = {
        "id": event.order_id,
        "now": now,
        "next_offer_at": next_offer_at,
        **event_parameters([event]),
    }
    return await connection.scalar(_CANCEL, parameters) is not None


async def postpone_overdue(
    connection: AsyncConnection, seconds: float, limit: int
) -> list[uuid.UUID]:
    """Orders whose answer is overdue and whose event was sent; each is due again later.

    Those that were returned before come first, others only until `limit` have no answer. They are
    due again after twice `seconds`, and beyond STEADY_OFFERS in doubling pauses, an hour at most.
    """
    rows = await connection.scalars(_POSTPONE_OVERDUE, {"seconds": seconds, "limit": limit})
    return list(rows)


async def load_orders(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID], *, history: bool = False
) -> dict[uuid.UUID, Order]:
    """Those of these orders that exist, with their items."""
    ids = {"ids": list(order_ids)}
    items: dict[uuid.UUID, list[Item]] = {order_id: [] for order_id in order_ids}
    changes: dict[uuid.UUID, list[StatusChange]] = {order_id: [] for order_id in order_ids}
    rows = (await connection.execute(_ORDERS, ids)).all()
    for row in await connection.execute(_ITEMS, ids):
        items[row.order_id].append(
            Item(row.product_id, row.name, row.quantity, row.unit_price_cents)
        )
    if history:
        for row in await connection.execute(_HISTORY, ids):
            changes[row.order_id].append(
                StatusChange(Status(row.status), row.changed_at, row.request_id or "")
            )
    return {row.id: _order(row, items[row.id], changes[row.id]) for row in rows}


async def load_headers(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Order]:
    """Those of these orders that exist, without their items."""
    rows = await connection.execute(_ORDERS, {"ids": list(order_ids)})
    return {row.id: _order(row, ()) for row in rows}


async def page_of_ids(
    connection: AsyncConnection,
    *,
    user_id: int,
    status: Status | None,
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


async def find_by_keys(
    connection: AsyncConnection, keys: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], StoredKey]:
    """The orders stored under these (user, idempotency key) pairs."""
    statement = select(
        orders.c.user_id, orders.c.idempotency_key, orders.c.id, orders.c.fingerprint
    ).where(tuple_(orders.c.user_id, orders.c.idempotency_key).in_(keys))
    rows = (await connection.execute(statement)).all()
    found = await load_orders(connection, [row.id for row in rows]) if rows else {}
    return {
        (row.user_id, str(row.idempotency_key)): StoredKey(
            found[row.id], bytes(row.fingerprint or b"")
        )
        for row in rows
    }


def _order(row: AnyRow, items: Sequence[Item], history: Sequence[StatusChange] = ()) -> Order:
    return Order(
        id=row.id,
        user_id=row.user_id,
        status=Status(row.status),
        items=items,
        total_cents=row.total_cents,
        created_at=row.created_at,
        updated_at=row.updated_at,
        shortages=[Shortage(**short) for short in row.shortages or ()],
        history=history,
    )
