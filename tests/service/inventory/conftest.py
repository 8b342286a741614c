"""Inventory's database, alone or behind the service."""

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate
from tests.service.inventory.shop import execute
from tests.support.services import Inventory


@pytest_asyncio.fixture
async def ledger_adds_up(inventory: Inventory) -> AsyncIterator[None]:
    """After the test no stock is negative, and each equals the sum of its movements."""
    yield
    statement = text("""
        SELECT products.id, stock, coalesce(sum(delta), 0) AS moved
        FROM products LEFT JOIN stock_movements ON product_id = products.id
        GROUP BY products.id HAVING stock < 0 OR stock <> coalesce(sum(delta), 0)
    """)
    async with inventory.engine.connect() as connection:
        assert (await connection.execute(statement)).all() == []


@pytest_asyncio.fixture(scope="module")
async def migrated(inventory_database_url: str) -> str:
    """The URL of a fresh inventory database."""
    await migrate(inventory_database_url, "inventory_service")
    return inventory_database_url


@pytest_asyncio.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    """The inventory database without products."""
    async with open_engine(migrated, "tests", pool_size=16) as found:
        await execute(found, "TRUNCATE products, stock_movements, reservations, stock_balances")
        yield found
