"""SQL of the catalogue, the stock and its ledger; `consistency.repository` has that of the checks.

Functions run in the caller's transaction.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import cast

import orjson
from sqlalchemy import ARRAY, BigInteger, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from inventory_service.domain import (
    Product,
    ProductSummary,
    Reservation,
    ReservationRecord,
    StockMovement,
)
from inventory_service.stock_plan import StockPlan
from inventory_service.tables import products, reservations, stock_movements
from proto.stock import ReservationState, StockMovementKind
from service_kit.errors import Aborted

_PRODUCT_COLUMNS = [products.c[field.name] for field in fields(Product)]
_MOVEMENT_COLUMNS = [stock_movements.c[field.name] for field in fields(StockMovement)]

_ANY_PRODUCT = bindparam("products", type_=ARRAY(BigInteger)).any_()
_ANY_ORDER = bindparam("orders", type_=ARRAY(Uuid)).any_()

_SUMMARIES = select(*(products.c[name] for name in ProductSummary._fields)).where(
    products.c.id == _ANY_PRODUCT
)

# Every batch locks reservations first and products second, each by ascending key: crossing
# orders wait for each other and cannot deadlock.
_LOCK_RESERVATIONS = (
    select(reservations.c.order_id, reservations.c.state, reservations.c.shortages)
    .where(reservations.c.order_id == _ANY_ORDER)
    .order_by(reservations.c.order_id)
    .with_for_update()
)
_LOCK_STOCK = (
    select(products.c.id, products.c.stock)
    .where(products.c.id == _ANY_PRODUCT)
    .order_by(products.c.id)
    .with_for_update()
)
_DEDUCTED = select(
    stock_movements.c.order_id, stock_movements.c.product_id, stock_movements.c.delta
).where(
    stock_movements.c.order_id == _ANY_ORDER, stock_movements.c.kind == StockMovementKind.DEDUCT
)

# Movements only if every reservation is new: those of an order that another transaction opened
# meanwhile are in the ledger, and would violate its unique index.
_WRITE_PLAN = text("""
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
        CAST(:movement_products AS bigint[]), CAST(:movement_deltas AS bigint[]))
    WHERE (SELECT count(*) FROM opened) = cardinality(CAST(:orders AS uuid[]))
), restocked AS (
    UPDATE products SET stock = products.stock + change.delta
    FROM unnest(CAST(:products AS bigint[]), CAST(:deltas AS bigint[])) AS change (id, delta)
    WHERE products.id = change.id
)
SELECT count(*) FROM opened
""")
_MARK_RESTORED = (
    update(reservations)
    .where(reservations.c.order_id == _ANY_ORDER)
    .values(state=ReservationState.RESTORED)
)

_RESERVATIONS = select(
    reservations.c.order_id,
    reservations.c.created_at,
    reservations.c.state,
    reservations.c.shortages,
)
_MOVEMENTS_OF_ORDERS = (
    select(*_MOVEMENT_COLUMNS)
    .where(stock_movements.c.order_id == _ANY_ORDER)
    .order_by(stock_movements.c.id)
)


async def insert_product(
    connection: AsyncConnection, values: Mapping[str, str | int]
) -> Product | None:
    """Add a product; None if its id, given or the sequence's next, is taken."""
    statement = pg_insert(products).values(**values).on_conflict_do_nothing()
    row = (await connection.execute(statement.returning(*_PRODUCT_COLUMNS))).one_or_none()
    return None if row is None else Product.from_row(row)


async def skip_taken_ids(connection: AsyncConnection) -> None:
    """Let the sequence of product ids continue after the largest id."""
    await connection.execute(
        text("SELECT setval(pg_get_serial_sequence('products', 'id'), max(id)) FROM products")
    )


async def get_product(connection: AsyncConnection, product_id: int) -> Product | None:
    """The product, if it exists."""
    statement = select(*_PRODUCT_COLUMNS).where(products.c.id == product_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Product.from_row(row)


async def list_products(
    connection: AsyncConnection, *, query: str, after: int | None, limit: int
) -> list[Product]:
    """Products by ascending id, from after an id, whose names contain `query` in any case."""
    statement = select(*_PRODUCT_COLUMNS).order_by(products.c.id).limit(limit)
    if after is not None:
        statement = statement.where(products.c.id > after)
    if query:
        statement = statement.where(products.c.name.icontains(query, autoescape=True))
    return [Product.from_row(row) for row in await connection.execute(statement)]


async def update_product(
    connection: AsyncConnection, product_id: int, values: Mapping[str, str | int]
) -> Product | None:
    """Change columns of a product; None if it does not exist."""
    statement = (
        update(products)
        .where(products.c.id == product_id)
        .values(**values, updated_at=func.now())
        .returning(*_PRODUCT_COLUMNS)
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Product.from_row(row)


async def get_summaries(
    connection: AsyncConnection, product_ids: Collection[int]
) -> dict[int, ProductSummary]:
    """The products that exist, by id."""
    rows = await connection.execute(_SUMMARIES, {"products": list(product_ids)})
    return {row.id: ProductSummary(*row) for row in rows}


async def lock_stock(connection: AsyncConnection, product_ids: Collection[int]) -> dict[int, int]:
    """The stock of the products that exist, by id, locked until the transaction ends."""
    rows = await connection.execute(_LOCK_STOCK, {"products": list(product_ids)})
    return {row.id: row.stock for row in rows}


async def lock_reservations(
    connection: AsyncConnection, order_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, Reservation]:
    """What was decided for these orders before, locked until the transaction ends."""
    rows = await connection.execute(_LOCK_RESERVATIONS, {"orders": list(order_ids)})
    return {order_id: Reservation.from_row(columns) for order_id, *columns in rows}


async def deducted_items(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, dict[int, int]]:
    """Quantity by product id of what the ledger says was deducted for each of these orders."""
    deducted: dict[uuid.UUID, dict[int, int]] = {}
    for order_id, product_id, delta in await connection.execute(_DEDUCTED, {"orders": order_ids}):
        deducted.setdefault(cast("uuid.UUID", order_id), {})[product_id] = -delta
    return deducted


async def write_plan(connection: AsyncConnection, plan: StockPlan) -> None:
    """Write a plan: reservations, ledger rows and stock.

    Raises Aborted if another transaction decided for one of the orders meanwhile.
    """
    if plan.new_reservations or plan.movements:
        opened = await connection.scalar(_WRITE_PLAN, _plan_parameters(plan))
        if opened != len(plan.new_reservations):
            raise Aborted("DATABASE_CONFLICT", "Another update of the same order came first.")
    if plan.restored:
        await connection.execute(_MARK_RESTORED, {"orders": plan.restored})


def _plan_parameters(plan: StockPlan) -> dict[str, object]:
    deltas = plan.deltas()
    opened = sorted(plan.new_reservations.items())
    return {
        "orders": [order_id for order_id, _ in opened],
        "states": [reservation.state for _, reservation in opened],
        "shortages": [
            orjson.dumps(reservation.shortages).decode() if reservation.shortages else None
            for _, reservation in opened
        ],
        "movement_orders": [movement.order_id for movement in plan.movements],
        "kinds": [movement.kind for movement in plan.movements],
        "movement_products": [movement.product_id for movement in plan.movements],
        "movement_deltas": [movement.delta for movement in plan.movements],
        "products": list(deltas),
        "deltas": list(deltas.values()),
    }


async def set_stock(connection: AsyncConnection, product_id: int, stock: int) -> None:
    """Change the stock of a product that is locked."""
    await connection.execute(
        update(products).where(products.c.id == product_id).values(stock=stock)
    )


async def insert_movement(
    connection: AsyncConnection,
    product_id: int,
    kind: StockMovementKind,
    delta: int,
    reason: str = "",
) -> None:
    """Add a ledger row that belongs to no order."""
    await connection.execute(
        insert(stock_movements).values(product_id=product_id, kind=kind, delta=delta, reason=reason)
    )


async def list_movements(
    connection: AsyncConnection, product_id: int, *, before: int | None, limit: int
) -> list[StockMovement]:
    """A product's ledger, newest first, from before a movement's id."""
    statement = (
        select(*_MOVEMENT_COLUMNS)
        .where(stock_movements.c.product_id == product_id)
        .order_by(stock_movements.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(stock_movements.c.id < before)
    return [StockMovement.from_row(row) for row in await connection.execute(statement)]


async def get_reservations(
    connection: AsyncConnection, order_ids: Sequence[uuid.UUID]
) -> list[ReservationRecord]:
    """The reservations of these orders with their movements; orders without one are left out."""
    parameters = {"orders": order_ids}
    # Reservations first: their movements were committed with them, or are newer.
    rows = await connection.execute(
        _RESERVATIONS.where(reservations.c.order_id == _ANY_ORDER), parameters
    )
    found = [ReservationRecord.from_row(row) for row in rows]
    movements: dict[uuid.UUID | None, list[StockMovement]] = {}
    for row in await connection.execute(_MOVEMENTS_OF_ORDERS, parameters):
        movement = StockMovement.from_row(row)
        movements.setdefault(movement.order_id, []).append(movement)
    return [replace(each, movements=movements.get(each.order_id, ())) for each in found]


async def list_reservations(
    connection: AsyncConnection,
    *,
    state: ReservationState | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[ReservationRecord]:
    """Reservations in a state, or in any, by ascending order id, from after one."""
    statement = _RESERVATIONS.order_by(reservations.c.order_id).limit(limit)
    if state is not None:
        statement = statement.where(reservations.c.state == state)
    if after is not None:
        statement = statement.where(reservations.c.order_id > after)
    return [ReservationRecord.from_row(row) for row in await connection.execute(statement)]
