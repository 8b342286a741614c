"""Products and orders in inventory's database, without the service around it."""

import uuid
from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service import operations
from inventory_service.consistency.checks import run_checks
from inventory_service.domain import StockUpdate
from proto.stock import StockUpdateKind


async def execute(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def create_product(engine: AsyncEngine, stock: int = 1000) -> int:
    created = await operations.create_product(
        engine, name="Tea", description="", price_cents=250, stock=stock, product_id=None
    )
    return int(created.id)


async def deduct(engine: AsyncEngine, items: Mapping[int, int]) -> uuid.UUID:
    """Take stock for a new order, and return the order's id."""
    order_id = uuid.uuid4()
    update = StockUpdate(order_id, StockUpdateKind.DEDUCT, items)
    await operations.update_stock(engine, [update])
    return order_id


async def restore(engine: AsyncEngine, order_id: uuid.UUID) -> None:
    """Restore what was deducted for an order."""
    await operations.update_stock(engine, [StockUpdate(order_id, StockUpdateKind.RESTORE, {})])


async def insert_products(engine: AsyncEngine, count: int) -> list[int]:
    """Products without stock and movements; returns their ids, ascending."""
    await execute(
        engine,
        "INSERT INTO products (name, description, price_cents, stock)"
        " SELECT 'Tea', '', 250, 0 FROM generate_series(1, :count)",
        count=count,
    )
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT id FROM products ORDER BY id")))


async def violations(engine: AsyncEngine) -> set[str]:
    """What the checks find, a line each."""
    return {
        f"{check.invariant} {finding.subject}: {finding.detail}"
        async for check, found in run_checks(engine)
        for finding in found
    }
