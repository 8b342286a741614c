"""Writes that fail and transactions that deadlock while orders are placed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.shop.shop import Shop
from tests.support.postgres import Database

FAILING_SECONDS = 4.0
CONFLICT_SECONDS = 8.0


@asynccontextmanager
async def _raising(database: Database, table: str, state: str, when: str) -> AsyncIterator[None]:
    """Inside the block writes to the table fail with this SQLSTATE whenever `when` is true.

    A sequence records that one failed, because a rollback does not reset it.
    """
    await database.rows("CREATE SEQUENCE failures")
    await database.rows(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {when} THEN PERFORM nextval('failures');"
        f" RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END IF;"
        " RETURN NULL; END $$"
    )
    await database.rows(
        f"CREATE TRIGGER fail AFTER INSERT OR UPDATE ON {table} EXECUTE FUNCTION fail()"
    )
    try:
        yield
        assert await database.value("SELECT is_called FROM failures"), "nothing failed"
    finally:
        await database.rows("DROP FUNCTION fail CASCADE")
        await database.rows("DROP SEQUENCE failures")


@pytest.mark.cases(
    "case",
    [
        "orders 53100",
        "outbox 53100",
        "reservations 53100",
        "stock_movements 53100",
        "orders 40001",
        "orders 40P01",
        "products 40001",
        "products 40P01",
    ],
    quick=1,
)
async def test_writes_to_a_table_fail(shop: Shop, buyers: Buyers, case: str) -> None:
    table, state = case.split()
    database = shop.orders if table in ("orders", "outbox") else shop.inventory
    # A full disk fails every write; conflicts fail some.
    when = "true" if state == "53100" else "random() < 0.5"
    async with buyers.ordering():
        async with _raising(database, table, state, when):
            await asyncio.sleep(FAILING_SECONDS)
        healed_at = time.monotonic()
    assert await violations_after(shop, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_transactions_deadlock(shop: Shop, buyers: Buyers) -> None:
    """Other sessions lock the products in the opposite order, slowly, continuously."""
    deadlocks = await _deadlocks(shop.inventory)
    products = sorted(buyers.products, reverse=True)
    async with buyers.ordering():
        sessions = [asyncio.create_task(_lock(shop.inventory, products)) for _ in range(2)]
        await asyncio.sleep(CONFLICT_SECONDS)
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        healed_at = time.monotonic()
    assert await violations_after(shop, buyers, healed_at) == []
    assert await _deadlocks(shop.inventory) > deadlocks


async def _lock(database: Database, products: list[int]) -> None:
    connection = await database.connect()
    try:
        while True:
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    for product_id in products:
                        await connection.execute(
                            "SELECT stock FROM products WHERE id = $1 FOR UPDATE", product_id
                        )
                        await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def _deadlocks(database: Database) -> int:
    return int(
        await database.value(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    )
