"""The continuous consistency check: what it finds, and what is no violation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service import operations
from inventory_service.consistency import monitor, repository
from inventory_service.consistency.monitor import ContinuousChecks
from tests.service.inventory.shop import (
    create_product,
    deduct,
    execute,
    insert_products,
    restore,
    violations,
)
from tests.support.infrastructure import Infrastructure
from tests.support.services import inventory_running
from tests.support.waiting import eventually, free_port


async def wrong_stock(checks: ContinuousChecks) -> dict[str, str]:
    return {finding.subject: finding.detail for finding in await checks.find_wrong_stock()}


async def test_the_monitor_finds_stock_changed_by_hand_until_it_is_put_right(
    engine: AsyncEngine,
) -> None:
    tea, other = await create_product(engine, 10), await create_product(engine, 10)
    checks = ContinuousChecks(engine)
    assert await wrong_stock(checks) == {}
    await execute(engine, "UPDATE products SET stock = 7 WHERE id = :id", id=tea)
    for _ in range(3):
        assert await wrong_stock(checks) == {f"product {tea}": "stock 7, ledger 10"}
        await deduct(engine, {other: 1})
    assert await wrong_stock(ContinuousChecks(engine)) == {f"product {tea}": "stock 7, ledger 10"}
    await operations.adjust_stock(engine, tea, 1, "found one")
    assert await wrong_stock(checks) == {f"product {tea}": "stock 8, ledger 11"}
    await execute(engine, "UPDATE products SET stock = 11 WHERE id = :id", id=tea)
    assert await wrong_stock(checks) == {}
    assert await wrong_stock(ContinuousChecks(engine)) == {}


async def test_a_finding_has_whole_numbers(engine: AsyncEngine) -> None:
    product = await create_product(engine, 990_000)
    await execute(engine, "UPDATE products SET stock = 1 WHERE id = :id", id=product)
    assert await wrong_stock(ContinuousChecks(engine)) == {
        f"product {product}": "stock 1, ledger 990000"
    }
    await execute(engine, "UPDATE products SET stock = 990000 WHERE id = :id", id=product)


async def test_a_change_by_hand_is_found_although_it_is_committed_after_later_ones(
    engine: AsyncEngine,
) -> None:
    tea, other = await create_product(engine, 10), await create_product(engine, 10)
    checks = ContinuousChecks(engine)
    await checks.find_wrong_stock()
    async with engine.begin() as by_hand:
        await by_hand.execute(text("UPDATE products SET stock = 9 WHERE id = :id"), {"id": tea})
        for _ in range(3):
            await deduct(engine, {other: 1})
            assert await wrong_stock(checks) == {}
    assert await wrong_stock(checks) == {f"product {tea}": "stock 9, ledger 10"}


async def test_stock_put_right_after_a_ledger_row_was_deleted_is_no_violation(
    engine: AsyncEngine,
) -> None:
    tea = await create_product(engine, 1000)
    orders = [await deduct(engine, {tea: 1}) for _ in range(100)]
    checks = ContinuousChecks(engine)
    assert await wrong_stock(checks) == {}
    async with engine.connect() as connection:
        stored = await connection.scalar(text("SELECT balance FROM stock_balances"))
    assert stored == 900
    await execute(engine, "DELETE FROM stock_movements WHERE order_id = :id", id=orders[7])
    await execute(engine, "UPDATE products SET stock = 901")
    assert await wrong_stock(checks) == {}
    await deduct(engine, {tea: 1})
    assert await wrong_stock(checks) == {}


async def test_stored_balances_may_be_emptied_at_any_time(engine: AsyncEngine) -> None:
    tea = await create_product(engine, 10)
    checks = ContinuousChecks(engine)
    assert await wrong_stock(checks) == {}
    await deduct(engine, {tea: 1})
    await execute(engine, "TRUNCATE stock_balances")
    assert await wrong_stock(checks) == {}
    await execute(engine, "UPDATE products SET stock = 10")
    assert await wrong_stock(checks) == {f"product {tea}": "stock 10, ledger 9"}


async def test_a_change_by_hand_that_undoes_new_movements_is_found_with_the_next_one(
    engine: AsyncEngine,
) -> None:
    tea = await create_product(engine, 10)
    checks = ContinuousChecks(engine)
    assert await wrong_stock(checks) == {}
    await deduct(engine, {tea: 3})
    await execute(engine, "UPDATE products SET stock = 10")
    assert await wrong_stock(checks) == {}
    await deduct(engine, {tea: 1})
    assert await wrong_stock(checks) == {f"product {tea}": "stock 9, ledger 6"}


async def test_a_run_compares_up_to_10_000_products_at_once(engine: AsyncEngine) -> None:
    await insert_products(engine, 10_000)
    await execute(
        engine,
        "UPDATE products SET stock = 1 WHERE id = (SELECT max(id) FROM products)"
        " OR id = (SELECT min(id) FROM products)",
    )
    checks = ContinuousChecks(engine)
    for _ in range(3):
        assert list((await wrong_stock(checks)).values()) == ["stock 1, ledger 0"] * 2


async def test_more_products_are_compared_in_turn_and_what_was_found_in_every_run(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SLICE_SIZE", 10)
    first, *_, last = await insert_products(engine, 25)
    await execute(engine, "UPDATE products SET stock = 1 WHERE id IN (:a, :b)", a=first, b=last)
    checks = ContinuousChecks(engine)
    found = [list(await wrong_stock(checks)) for _ in range(7)]
    both = [f"product {first}", f"product {last}"]
    assert found == [both[:1], both[:1], both, both, both, both, both]
    await execute(engine, "UPDATE products SET stock = 0 WHERE id = :id", id=first)
    assert list(await wrong_stock(checks)) == both[1:]


async def test_a_hundred_products_are_reported_at_most_and_those_found_before_again(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SLICE_SIZE", 200)
    products = await insert_products(engine, 400)
    checks = ContinuousChecks(engine)
    await wrong_stock(checks)
    await execute(engine, "UPDATE products SET stock = 1")
    expected = [f"product {product_id}" for product_id in products[200:300]]
    for _ in range(3):
        assert list(await wrong_stock(checks)) == expected


async def test_the_ledger_is_read_by_its_index_on_product_and_id(engine: AsyncEngine) -> None:
    """Also with few products, where the planner takes most of the ledger to be new."""
    ids = await insert_products(engine, 3)
    await execute(
        engine,
        "INSERT INTO stock_movements (product_id, kind, delta)"
        " SELECT :first + n % 3, 'ADJUSTMENT', 1 FROM generate_series(1, 30000) AS n",
        first=ids[0],
    )
    await execute(engine, "ANALYZE products, stock_movements, stock_balances")
    statement = text(f"EXPLAIN {repository._COMPARE.text}").bindparams(
        *repository._COMPARE._bindparams.values()
    )
    values = {"after": 0, "found": [], "slice_size": 10_000, "max_suspects": 100}
    async with engine.connect() as connection:
        plan = "\n".join(await connection.scalars(statement, values))
    assert "ix_stock_movements_product_id_id" in plan
    assert "Seq Scan on stock_movements" not in plan
    assert "pk_stock_movements" not in plan


async def test_the_monitor_finds_nothing_among_concurrent_updates(engine: AsyncEngine) -> None:
    teas = [await create_product(engine, 300) for _ in range(4)]
    finished = asyncio.Event()

    async def buy_and_return(number: int) -> None:
        for _ in range(12):
            order_id = await deduct(engine, {teas[number % 4]: 1, teas[(number + 1) % 4]: 2})
            if number % 2:
                await restore(engine, order_id)
            await operations.adjust_stock(engine, teas[0], 1, "found one")

    async def watch() -> int:
        checks, runs = ContinuousChecks(engine), 0
        while not finished.is_set():
            assert await wrong_stock(checks) == {}
            runs += 1
        return runs

    watching = [asyncio.create_task(watch()) for _ in range(2)]
    await asyncio.gather(*(buy_and_return(number) for number in range(12)))
    finished.set()
    assert min(await asyncio.gather(*watching)) > 3
    assert await wrong_stock(ContinuousChecks(engine)) == {}
    assert await violations(engine) == set()


@pytest_asyncio.fixture(scope="module")
async def monitored(infrastructure: Infrastructure) -> AsyncIterator[tuple[AsyncEngine, str]]:
    """A running service's database, and where it serves its metrics."""
    port = free_port()
    async with (
        infrastructure.database() as url,
        inventory_running(
            url, inventory_service_metrics_port=port, inventory_consistency_seconds=2
        ) as service,
    ):
        yield service.engine, f"http://127.0.0.1:{port}/metrics"


def gauge(url: str) -> Callable[[], Awaitable[float]]:
    async def read() -> float:
        name = 'consistency_findings{check="stock_equals_ledger"} '
        async with httpx.AsyncClient() as client:
            page = (await client.get(url)).raise_for_status().text
        return next(
            (float(line.removeprefix(name)) for line in page.splitlines() if line.startswith(name)),
            -1.0,
        )

    return read


async def test_a_running_service_reports_stock_changed_by_hand_within_5_s(
    monitored: tuple[AsyncEngine, str], capsys: pytest.CaptureFixture[str]
) -> None:
    engine, url = monitored
    tea = await create_product(engine, 10)
    await eventually(gauge(url), lambda count: count == 0)
    await execute(engine, "UPDATE products SET stock = 9 WHERE id = :id", id=tea)
    await eventually(gauge(url), lambda count: count == 1, within=5)
    logged = capsys.readouterr().out
    assert "inconsistency found" in logged
    assert f"product {tea}" in logged
    await operations.adjust_stock(engine, tea, 1, "found one")
    await execute(engine, "UPDATE products SET stock = 11 WHERE id = :id", id=tea)
    await eventually(gauge(url), lambda count: count == 0, within=5)
    assert "inconsistency resolved" in capsys.readouterr().out
