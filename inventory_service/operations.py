"""What inventory does: the catalogue, and the stock with its ledger."""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service import repository
from inventory_service.domain import (
    Product,
    ProductSummary,
    ReservationRecord,
    StockMovement,
    StockUpdate,
    StockUpdateResult,
    adjusted_stock,
    check_adjustment,
    check_changes,
    check_product,
    check_query,
)
from inventory_service.stock_plan import StockPlan
from proto.stock import ReservationState, StockMovementKind, StockUpdateKind
from service_kit.errors import AlreadyExists, InvalidArgument, NotFound
from service_kit.pagination import decode_int_token, decode_uuid_token, page_size, split_page
from service_kit.postgres.engine import autocommit, dry_run, retrying_conflicts, transaction

MAX_CHECKS = 10_000
MAX_UPDATES = 1_000
MAX_RESERVATIONS = 1_000
DEFAULT_RESERVATIONS = 100


async def create_product(
    engine: AsyncEngine,
    *,
    name: str,
    description: str,
    price_cents: int,
    stock: int,
    product_id: int | None,
) -> Product:
    """Add a product with its initial stock; AlreadyExists if the explicit id is taken."""
    fields: dict[str, str | int] = {
        "name": name,
        "description": description,
        "price_cents": price_cents,
        "stock": stock,
    }
    if product_id is not None:
        fields["id"] = product_id
    check_product(fields)
    async with transaction(engine) as connection:
        product = await repository.insert_product(connection, fields)
        while product is None and product_id is None:
            # The sequence reached an explicit id.
            await repository.skip_taken_ids(connection)
            product = await repository.insert_product(connection, fields)
        if product is None:
            raise AlreadyExists("PRODUCT_EXISTS", f"Product {product_id} already exists.")
        await repository.insert_movement(connection, product.id, StockMovementKind.INITIAL, stock)
    return product


async def get_product(engine: AsyncEngine, product_id: int) -> Product:
    """The product; NotFound if it does not exist."""
    async with autocommit(engine) as connection:
        product = await repository.get_product(connection, product_id)
    if product is None:
        raise _not_found(product_id)
    return product


async def list_products(
    engine: AsyncEngine, *, size: int, token: str, query: str
) -> tuple[Sequence[Product], str]:
    """A page of products by ascending id, and the token of the next page ("" at the end)."""
    size, after = page_size(size), decode_int_token(token)
    check_query(query)
    async with autocommit(engine) as connection:
        found = await repository.list_products(connection, query=query, after=after, limit=size + 1)
    return split_page(found, size, lambda product: product.id)


async def update_product(
    engine: AsyncEngine, product_id: int, changes: Mapping[str, str | int]
) -> Product:
    """Change name, description or price_cents; NotFound if the product does not exist."""
    check_changes(changes)
    async with transaction(engine) as connection:
        product = await repository.update_product(connection, product_id, changes)
    if product is None:
        raise _not_found(product_id)
    return product


async def check_stock(engine: AsyncEngine, product_ids: Sequence[int]) -> dict[int, ProductSummary]:
    """The products that exist, by id; InvalidArgument for over 10,000."""
    _check_count("items", len(product_ids), MAX_CHECKS)
    async with autocommit(engine) as connection:
        return await repository.get_summaries(connection, set(product_ids))


@retrying_conflicts
async def update_stock(
    engine: AsyncEngine, updates: Sequence[StockUpdate], *, validate_only: bool = False
) -> list[StockUpdateResult]:
    """Apply order-driven updates in one transaction, each all-or-nothing and at most once.

    With `validate_only` that transaction is rolled back. InvalidArgument for over 1,000.
    """
    _check_count("updates", len(updates), MAX_UPDATES)
    begin = dry_run if validate_only else transaction
    async with begin(engine) as connection:
        order_ids = {update.order_id for update in updates}
        reservations = await repository.lock_reservations(connection, order_ids)
        restoring = [
            update.order_id
            for update in updates
            if update.kind is StockUpdateKind.RESTORE
            and update.order_id in reservations
            and reservations[update.order_id].state is ReservationState.DEDUCTED
        ]
        deducted = await repository.deducted_items(connection, restoring) if restoring else {}
        product_ids = {product_id for update in updates for product_id in update.items}
        product_ids.update(product_id for items in deducted.values() for product_id in items)
        stock = await repository.lock_stock(connection, product_ids) if product_ids else {}
        plan = StockPlan(stock, reservations, deducted)
        results = [plan.apply(update) for update in updates]
        await repository.write_plan(connection, plan)
    return results


async def adjust_stock(engine: AsyncEngine, product_id: int, delta: int, reason: str) -> int:
    """Change stock by hand, and return the new stock.

    NotFound if the product does not exist, FailedPrecondition (INSUFFICIENT_STOCK) if its stock
    would become negative.
    """
    check_adjustment(delta, reason)
    async with transaction(engine) as connection:
        stock = (await repository.lock_stock(connection, [product_id])).get(product_id)
        if stock is None:
            raise _not_found(product_id)
        stock = adjusted_stock(product_id, stock, delta)
        await repository.set_stock(connection, product_id, stock)
        await repository.insert_movement(
            connection, product_id, StockMovementKind.ADJUSTMENT, delta, reason
        )
    return stock


async def list_stock_movements(
    engine: AsyncEngine, product_id: int, *, size: int, token: str
) -> tuple[Sequence[StockMovement], str]:
    """A page of a product's ledger, newest first, and the token of the next page ("" at the end).

    NotFound if the product does not exist.
    """
    size, before = page_size(size), decode_int_token(token)
    async with autocommit(engine) as connection:
        found = await repository.list_movements(
            connection, product_id, before=before, limit=size + 1
        )
        if not found and await repository.get_product(connection, product_id) is None:
            raise _not_found(product_id)
    return split_page(found, size, lambda movement: movement.id)


async def get_reservations(
    engine: AsyncEngine, order_ids: Sequence[uuid.UUID]
) -> list[ReservationRecord]:
    """The reservations of these orders with their movements; orders without one are left out.

    InvalidArgument for over 1,000.
    """
    _check_count("orders", len(order_ids), MAX_RESERVATIONS)
    async with autocommit(engine) as connection:
        return await repository.get_reservations(connection, order_ids)


async def list_reservations(
    engine: AsyncEngine, *, state: ReservationState | None, size: int, token: str
) -> tuple[Sequence[ReservationRecord], str]:
    """A page of what was decided, by ascending order id, and the token of the next page."""
    size = page_size(size, DEFAULT_RESERVATIONS, MAX_RESERVATIONS)
    after = decode_uuid_token(token)
    async with autocommit(engine) as connection:
        found = await repository.list_reservations(
            connection, state=state, after=after, limit=size + 1
        )
    return split_page(found, size, lambda record: record.order_id)


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidArgument("TOO_MANY_ITEMS", f"At most {most:,} {what} are allowed in one call.")


def _not_found(product_id: int) -> NotFound:
    return NotFound("PRODUCT_NOT_FOUND", f"Product {product_id} does not exist.")
