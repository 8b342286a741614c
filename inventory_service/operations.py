"""What inventory does: the catalogue, and the stock with its ledger."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Select,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from inventory_service import ledger
from inventory_service.models import (
    Kind,
    State,
    StockPlan,
    StockUpdate,
    UpdateResult,
    products,
    reservations,
    stock_movements,
)
from service_kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from service_kit.pagination import (
    decode_int_token,
    decode_token,
    encode_token,
    invalid_token,
    page_size,
)
from service_kit.postgres.engine import AnyRow, autocommit, dry_run, retrying_conflicts, transaction

MAX_NAME, MAX_DESCRIPTION, MAX_REASON = 200, 5_000, 500
MAX_AMOUNT = 10**12
"""The largest price in cents, stock or adjustment."""
MAX_PRODUCT_ID = 2**53 - 1
"""The largest explicit id: every JSON reader can hold it."""
MAX_CHECKS = 10_000
MAX_UPDATES = 1_000
MAX_RESERVATIONS = 1_000

_CHECK = select(products.c.id, products.c.name, products.c.price_cents, products.c.stock).where(
    products.c.id == bindparam("ids", type_=ARRAY(BigInteger)).any_()
)

_ANY_ORDER = bindparam("ids", type_=ARRAY(Uuid)).any_()
_RESERVATIONS = select(reservations).where(reservations.c.order_id == _ANY_ORDER)
_MOVEMENTS = (
    select(stock_movements)
    .where(stock_movements.c.order_id == _ANY_ORDER)
    .order_by(stock_movements.c.id)
)


async def create_product(
    engine: AsyncEngine,
    *,
    name: str,
    description: str,
    price_cents: int,
    stock: int,
    product_id: int | None,
) -> AnyRow:
    """Add a product with its initial stock; AlreadyExists if the explicit id is taken."""
    _check_product(name, description, price_cents)
    if not 0 <= stock <= MAX_AMOUNT:
        raise InvalidArgument("INVALID_STOCK", f"stock must be 0 to {MAX_AMOUNT}", field="stock")
    if product_id is not None and not 1 <= product_id <= MAX_PRODUCT_ID:
        raise InvalidArgument("INVALID_ID", f"id must be 1 to {MAX_PRODUCT_ID}", field="id")
    values = {
        "name": name,
        "description": description,
        "price_cents": price_cents,
        "stock": stock,
    }
    async with transaction(engine) as connection:
        if product_id is None:
            product: AnyRow = await _insert_with_next_id(connection, values)
        else:
            found = await _insert_product(connection, {"id": product_id, **values})
            if found is None:
                raise AlreadyExists("PRODUCT_EXISTS", f"product {product_id} exists")
            product = found
        await connection.execute(
            insert(stock_movements).values(product_id=product.id, kind=Kind.INITIAL, delta=stock)
        )
    return product


async def get_product(engine: AsyncEngine, product_id: int) -> AnyRow:
    """The product; NotFound if there is none."""
    async with autocommit(engine) as connection:
        product: AnyRow | None = (await connection.execute(_by_id(product_id))).one_or_none()
    if product is None:
        raise _no_product(product_id)
    return product


async def list_products(
    engine: AsyncEngine, *, size: int, token: str, query: str
) -> tuple[Sequence[AnyRow], str]:
    """A page of products by ascending id, and the token of the next page ("" at the end)."""
    size, after = page_size(size), decode_int_token(token)
    _check_text("query", query, MAX_NAME, required=False)
    statement = select(products).order_by(products.c.id).limit(size + 1)
    if after is not None:
        statement = statement.where(products.c.id > after)
    if query:
        statement = statement.where(products.c.name.icontains(query, autoescape=True))
    async with autocommit(engine) as connection:
        return _page((await connection.execute(statement)).all(), size)


async def update_product(
    engine: AsyncEngine, product_id: int, changes: Mapping[str, str | int]
) -> AnyRow:
    """Change name, description or price_cents; NotFound if there is no such product."""
    unknown = set(changes) - {"name", "description", "price_cents"}
    if unknown or not changes:
        raise InvalidArgument(
            "INVALID_UPDATE_MASK", "update_mask must name name, description or price_cents"
        )
    _check_product(
        str(changes.get("name", "unchanged")),
        str(changes.get("description", "")),
        int(changes.get("price_cents", 0)),
    )
    async with transaction(engine) as connection:
        statement = (
            update(products)
            .where(products.c.id == product_id)
            .values(**changes, updated_at=func.now())
            .returning(products)
        )
        product: AnyRow | None = (await connection.execute(statement)).one_or_none()
    if product is None:
        raise _no_product(product_id)
    return product


async def check_stock(engine: AsyncEngine, product_ids: Sequence[int]) -> dict[int, AnyRow]:
    """Id, name, price_cents and stock of those of these products that exist."""
    if len(product_ids) > MAX_CHECKS:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_CHECKS} items in one call")
    async with autocommit(engine) as connection:
        rows = await connection.execute(_CHECK, {"ids": list(set(product_ids))})
        return {row.id: row for row in rows}


@retrying_conflicts
async def update_stock(
    engine: AsyncEngine, updates: Sequence[StockUpdate], *, validate_only: bool = False
) -> list[UpdateResult]:
    """Apply order-driven updates in one transaction, each all-or-nothing and at most once.

    With `validate_only` that transaction is rolled back.
    """
    if len(updates) > MAX_UPDATES:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_UPDATES} updates in one call")
    opened = dry_run if validate_only else transaction
    async with opened(engine) as connection:
        orders = {update.order_id for update in updates}
        decided = await ledger.lock_reservations(connection, orders)
        restoring = [
            update.order_id
            for update in updates
            if update.kind is Kind.RESTORE
            and update.order_id in decided
            and decided[update.order_id].state is State.DEDUCTED
        ]
        held = await ledger.held_items(connection, restoring) if restoring else {}
        ids = {product_id for update in updates for product_id in update.items}
        ids.update(product_id for items in held.values() for product_id in items)
        stock = await ledger.lock_stock(connection, ids) if ids else {}
        plan = StockPlan(stock, decided, held)
        results = [plan.apply(update) for update in updates]
        await ledger.record(connection, plan)
    return results


async def adjust_stock(engine: AsyncEngine, product_id: int, delta: int, reason: str) -> int:
    """Move stock by hand and return the new stock.

    Raises FailedPrecondition (INSUFFICIENT_STOCK) rather than let stock become negative.
    """
    if delta == 0 or abs(delta) > MAX_AMOUNT:
        raise InvalidArgument(
            "INVALID_DELTA", f"delta must be within ±{MAX_AMOUNT} and not 0", field="delta"
        )
    _check_text("reason", reason, MAX_REASON, required=True)
    async with transaction(engine) as connection:
        locked = select(products.c.stock).where(products.c.id == product_id).with_for_update()
        stock = await connection.scalar(locked)
        if stock is None:
            raise _no_product(product_id)
        if stock + delta < 0:
            raise FailedPrecondition(
                "INSUFFICIENT_STOCK",
                f"only {stock} in stock",
                product_id=product_id,
                requested=-delta,
                available=stock,
            )
        await connection.execute(
            update(products).where(products.c.id == product_id).values(stock=stock + delta)
        )
        await connection.execute(
            insert(stock_movements).values(
                product_id=product_id, kind=Kind.ADJUSTMENT, delta=delta, reason=reason
            )
        )
    return stock + delta


async def list_stock_movements(
    engine: AsyncEngine, product_id: int, *, size: int, token: str
) -> tuple[Sequence[AnyRow], str]:
    """A page of a product's ledger, newest first, and the token of the next page."""
    size, before = page_size(size), decode_int_token(token)
    statement = (
        select(stock_movements)
        .where(stock_movements.c.product_id == product_id)
        .order_by(stock_movements.c.id.desc())
        .limit(size + 1)
    )
    if before is not None:
        statement = statement.where(stock_movements.c.id < before)
    async with autocommit(engine) as connection:
        rows = (await connection.execute(statement)).all()
        if not rows and (await connection.execute(_by_id(product_id))).one_or_none() is None:
            raise _no_product(product_id)
    return _page(rows, size)


async def get_reservations(
    engine: AsyncEngine, order_ids: Sequence[uuid.UUID]
) -> list[tuple[AnyRow, list[AnyRow]]]:
    """What was decided for those of these orders that it was for, each with its movements."""
    if len(order_ids) > MAX_RESERVATIONS:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_RESERVATIONS} orders in one call")
    ids = {"ids": list(order_ids)}
    movements: dict[uuid.UUID, list[AnyRow]] = {}
    # Reservations first: their movements were committed with them, or are newer.
    async with autocommit(engine) as connection:
        found = (await connection.execute(_RESERVATIONS, ids)).all()
        for row in await connection.execute(_MOVEMENTS, ids):
            movements.setdefault(row.order_id, []).append(row)
    return [(row, movements.get(row.order_id, [])) for row in found]


async def list_reservations(
    engine: AsyncEngine, *, state: State | None, size: int, token: str
) -> tuple[Sequence[AnyRow], str]:
    """A page of what was decided, by ascending order id, and the token of the next page."""
    size = page_size(size, 100, MAX_RESERVATIONS)
    statement = select(reservations).order_by(reservations.c.order_id).limit(size + 1)
    if state is not None:
        statement = statement.where(reservations.c.state == state)
    key = decode_token(token)
    if key is not None:
        try:
            statement = statement.where(reservations.c.order_id > uuid.UUID(key))
        except ValueError as error:
            raise invalid_token() from error
    async with autocommit(engine) as connection:
        rows = (await connection.execute(statement)).all()
    page = rows[:size]
    return page, encode_token(page[-1].order_id) if len(rows) > size else ""


async def _insert_product(connection: AsyncConnection, values: dict[str, object]) -> AnyRow | None:
    statement = pg_insert(products).values(values).on_conflict_do_nothing().returning(products)
    product: AnyRow | None = (await connection.execute(statement)).one_or_none()
    return product


async def _insert_with_next_id(connection: AsyncConnection, values: dict[str, object]) -> AnyRow:
    product = await _insert_product(connection, values)
    while product is None:
        # The sequence ran into an explicit id: let it go on behind the largest one.
        await connection.execute(
            text("SELECT setval(pg_get_serial_sequence('products', 'id'), max(id)) FROM products")
        )
        product = await _insert_product(connection, values)
    return product


def _page(rows: Sequence[AnyRow], size: int) -> tuple[Sequence[AnyRow], str]:
    page = rows[:size]
    return page, encode_token(page[-1].id) if len(rows) > size else ""


def _by_id(product_id: int) -> Select[Any]:
    return select(products).where(products.c.id == product_id)


def _check_product(name: str, description: str, price_cents: int) -> None:
    _check_text("name", name, MAX_NAME, required=True)
    _check_text("description", description, MAX_DESCRIPTION, required=False)
    if not 0 <= price_cents <= MAX_AMOUNT:
        raise InvalidArgument(
            "INVALID_PRICE", f"price must be 0 to {MAX_AMOUNT} cents", field="price_cents"
        )


def _check_text(field: str, value: str, longest: int, *, required: bool) -> None:
    if len(value) > longest or "\0" in value or (required and not value.strip()):
        raise InvalidArgument(
            f"INVALID_{field.upper()}",
            f"{field} must be {'1 to' if required else 'at most'} {longest} characters",
            field=field,
        )


def _no_product(product_id: int) -> NotFound:
    return NotFound("PRODUCT_NOT_FOUND", f"there is no product {product_id}")
