"""A PostgreSQL that fails in every way while orders come in."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from tests.faults.conftest import left_clean
from tests.faults.ground import Ground, ground
from tests.faults.harness import Shop, shop_running
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.faults.store import Store

DOWN_SECONDS = 10.0
FULL_SECONDS = 4.0
CONFLICT_SECONDS = 8.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("database") / "run") as standing:
        yield standing


@pytest_asyncio.fixture(scope="module")
async def hurt(own: Ground, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with shop_running(own.infrastructure, tmp_path_factory.mktemp("shop")) as shop:
        yield shop
        await left_clean(shop)


@pytest_asyncio.fixture(scope="module")
async def regulars(hurt: Shop, seed: str) -> Load:
    return await Load.of(hurt, f"{seed} database")


@pytest.fixture
def buyers(regulars: Load, request: pytest.FixtureRequest) -> Load:
    regulars.begin(request.node.name)
    return regulars


@pytest.mark.whole_matrix
async def test_the_database_is_killed_and_restarted(own: Ground, hurt: Shop, buyers: Load) -> None:
    refusals = buyers.refusals()
    async with buyers.going_on():
        await own.kill("postgres")
        healed_at = time.monotonic()
        assert buyers.refusals() > refusals
    assert await broken(hurt, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_the_database_is_down_for_a_while(own: Ground, hurt: Shop, buyers: Load) -> None:
    async with buyers.going_on():
        async with own.down("postgres"):
            refusals = buyers.refusals()
            await asyncio.sleep(DOWN_SECONDS)
            assert buyers.refusals() > refusals
        healed_at = time.monotonic()
    assert await broken(hurt, buyers, healed_at) == []


@asynccontextmanager
async def _raising(database: Store, table: str, state: str, when: str) -> AsyncIterator[None]:
    """Inside the block writes to the table fail with this SQLSTATE, whenever `when` is true.

    A sequence counts the failures, because a rollback does not set it back.
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


@pytest.mark.rows(
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
async def test_writes_fail(shop: Shop, load: Load, case: str) -> None:
    table, state = case.split()
    database = shop.orders if table in ("orders", "outbox") else shop.inventory
    # A full disk fails every write; conflicts and timeouts come and go.
    when = "true" if state == "53100" else "random() < 0.5"
    async with load.going_on():
        async with _raising(database, table, state, when):
            await asyncio.sleep(FULL_SECONDS)
        healed_at = time.monotonic()
    assert await broken(shop, load, healed_at) == []


@pytest.mark.whole_matrix
async def test_crossed_transactions_deadlock(shop: Shop, load: Load) -> None:
    """Somebody locks the products in the opposite order, slowly, all the time."""
    deadlocks = await _deadlocks(shop.inventory)
    wares = sorted(load.products, reverse=True)
    async with load.going_on():
        rivals = [asyncio.create_task(_lock(shop.inventory, wares)) for _ in range(2)]
        await asyncio.sleep(CONFLICT_SECONDS)
        for rival in rivals:
            rival.cancel()
        await asyncio.gather(*rivals, return_exceptions=True)
        healed_at = time.monotonic()
    assert await broken(shop, load, healed_at) == []
    assert await _deadlocks(shop.inventory) > deadlocks


async def _lock(database: Store, wares: list[int]) -> None:
    connection = await database.connect()
    try:
        while True:
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    for ware in wares:
                        await connection.execute(
                            "SELECT stock FROM products WHERE id = $1 FOR UPDATE", ware
                        )
                        await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def _deadlocks(database: Store) -> int:
    return int(
        await database.value(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    )
