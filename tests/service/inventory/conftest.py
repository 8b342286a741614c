"""What holds after each of these tests."""

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import text

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
