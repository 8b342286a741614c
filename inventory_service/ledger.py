"""Reads and writes of the ledger for a batch of order-driven updates, a statement each."""

import uuid
from collections.abc import Collection, Sequence
from typing import cast

import orjson
from sqlalchemy import ARRAY, BigInteger, Uuid, bindparam, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inventory_service.models import (
    Kind,
    Reservation,
    Shortage,
    State,
    StockPlan,
    products,
    reservations,
    stock_movements,
)
from service_kit.errors import Aborted

_IDS = bindparam("ids", type_=ARRAY(BigInteger))
_ORDERS = bindparam("orders", type_=ARRAY(Uuid))

# Every batch locks reservations first and products second, each by ascending key: crossing
# orders wait for each other and cannot deadlock.
_LOCK_RESERVATIONS = (
    select(reservations.c.order_id, reservations.c.state, reservations.c.shortages)
    .where(reservations.c.order_id == _ORDERS.any_())
    .order_by(reservations.c.order_id)
    .with_for_update()
)
_LOCK_PRODUCTS = (
    select(products.c.id, products.c.stock)
    .where(products.c.id == _IDS.any_())
    .order_by(products.c.id)
    .with_for_update()
)
_HELD = select(
    stock_movements.c.order_id, stock_movements.c.product_id, stock_movements.c.delta
).where(stock_movements.c.order_id == _ORDERS.any_(), stock_movements.c.kind == Kind.DEDUCT)

_RESTORED = (
    update(reservations)
    .where(reservations.c.order_id == _ORDERS.any_())
    .values(state=State.RESTORED)
)

_RECORD = text("""
WITH opened AS (
    INSERT INTO reservations (order_id, state, shortages)
    SELECT * FROM unnest(
        CAST(:orders AS uuid[]), CAST(:states AS text[]),
        CAST(CAST(:shortages AS text[]) AS jsonb[]))
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id
), moved AS (
    INSERT INTO stock_movements (order_id, kind, product_id, delta)
    SELECT * FROM unnest(
        CAST(:movement_orders AS uuid[]), CAST(:kinds AS text[]),
        CAST(:product_ids AS bigint[]), CAST(:movement_deltas AS bigint[]))
), taken AS (
    UPDATE products SET stock = products.stock + change.delta
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deltas AS bigint[])) AS change (id, delta)
    WHERE products.id = change.id
)
SELECT count(*) FROM opened
""")


async def lock_reservations(
    connection: AsyncConnection, order_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, Reservation]:
    """What was decided for these orders before, locked until the transaction ends."""
    rows = await connection.execute(_LOCK_RESERVATIONS, {"orders": list(order_ids)})
    return {
        order_id: Reservation(State(state), [Shortage(**item) for item in shortages or ()])
        for order_id, state, shortages in rows
    }


async def lock_stock(connection: AsyncConnection, ids: Collection[int]) -> dict[int, int]:
    """The stock of those of these products that exist, locked until the transaction ends."""
    rows = await connection.execute(_LOCK_PRODUCTS, {"ids": list(ids)})
    return {row.id: row.stock for row in rows}


async def held_items(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, dict[int, int]]:
    """What the ledger says was deducted for each of these orders."""
    held: dict[uuid.UUID, dict[int, int]] = {}
    for row in await connection.execute(_HELD, {"orders": order_ids}):
        held.setdefault(cast("uuid.UUID", row.order_id), {})[row.product_id] = -row.delta
    return held


async def record(connection: AsyncConnection, plan: StockPlan) -> None:
    """Write a plan: reservations, ledger rows and stock.

    Raises Aborted if another transaction decided for one of the orders meanwhile.
    """
    if plan.opened or plan.movements:
        opened = await connection.scalar(_RECORD, _parameters(plan))
        if opened != len(plan.opened):
            raise Aborted("DATABASE_CONFLICT", "another update of the same order was faster")
    if plan.restored:
        await connection.execute(_RESTORED, {"orders": plan.restored})


def _parameters(plan: StockPlan) -> dict[str, object]:
    deltas = plan.deltas()
    opened = sorted(plan.opened.items())
    return {
        "orders": [order_id for order_id, _ in opened],
        "states": [reservation.state for _, reservation in opened],
        "shortages": [
            orjson.dumps(reservation.shortages).decode() if reservation.shortages else None
            for _, reservation in opened
        ],
        "movement_orders": [order_id for order_id, _, _, _ in plan.movements],
        "kinds": [kind for _, kind, _, _ in plan.movements],
        "product_ids": [product_id for _, _, product_id, _ in plan.movements],
        "movement_deltas": [delta for _, _, _, delta in plan.movements],
        "ids": list(deltas),
        "deltas": list(deltas.values()),
    }
