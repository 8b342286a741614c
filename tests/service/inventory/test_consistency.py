"""The consistency checks of stock: what they find, and what is no violation."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service import operations
from inventory_service.consistency import monitor as monitoring
from inventory_service.consistency.checks import run_checks
from inventory_service.consistency.monitor import StockMonitor
from inventory_service.domain import StockUpdate, StockUpdateKind
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate
from tests.support.cli import CommandResult, run_command, url_of
from tests.support.infrastructure import Infrastructure
from tests.support.services import inventory_running
from tests.support.waiting import eventually, free_port


@pytest_asyncio.fixture(scope="module")
async def migrated(inventory_database_url: str) -> str:
    await migrate(inventory_database_url, "inventory_service")
    return inventory_database_url


@pytest_asyncio.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    """The inventory database without products."""
    async with open_engine(migrated, "tests", pool_size=16) as found:
        await execute(found, "TRUNCATE products, stock_movements, reservations, stock_balances")
        yield found


async def execute(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def product(engine: AsyncEngine, stock: int = 1000) -> int:
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
    """Put back what was taken for an order."""
    await operations.update_stock(engine, [StockUpdate(order_id, StockUpdateKind.RESTORE, {})])


async def violations(engine: AsyncEngine) -> set[str]:
    """What the checks find, a line each."""
    return {
        f"{check.invariant} {finding.subject}: {finding.detail}"
        async for check, found in run_checks(engine)
        for finding in found
    }


async def check_command(engine: AsyncEngine) -> CommandResult:
    return await run_command("inventory_service", "check", INVENTORY_DATABASE_URL=url_of(engine))


async def a_sale_a_return_and_a_rejection(engine: AsyncEngine) -> tuple[int, uuid.UUID, uuid.UUID]:
    """A product, an order that holds 3 of it, and one that gave 2 back."""
    tea = await product(engine, 10)
    sold = await deduct(engine, {tea: 3})
    returned = await deduct(engine, {tea: 2})
    await restore(engine, returned)
    await deduct(engine, {tea: 11})
    await restore(engine, uuid.uuid4())
    await operations.adjust_stock(engine, tea, 5, "found some")
    return tea, sold, returned


async def test_without_violations_the_command_ends_with_0(engine: AsyncEngine) -> None:
    await a_sale_a_return_and_a_rejection(engine)
    done = await check_command(engine)
    assert done.code == 0, done
    checks = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(check[0], check[-1]) for check in checks] == [("I1", "0"), ("I3", "0"), ("I3", "0")]
    assert done.stderr == ""


VIOLATIONS = {
    "a stock figure changed by hand": (
        "UPDATE products SET stock = stock - 4",
        "I3 product {tea}: stock 8, but initial 10 + adjusted 5 - deducted 5 + restored 2 = 12",
    ),
    "a ledger row deleted": (
        "DELETE FROM stock_movements WHERE kind = 'ADJUSTMENT'",
        "I3 product {tea}: stock 12, but initial 10 + adjusted 0 - deducted 5 + restored 2 = 7",
    ),
    "a deduction for a rejected order": (
        "UPDATE reservations SET state = 'REJECTED' WHERE order_id = :sold",
        "I3 order {sold}: REJECTED, deducted 3, restored 0",
    ),
    "a reservation that was deleted": (
        "DELETE FROM reservations WHERE order_id = :sold",
        "I3 order {sold}: no reservation, deducted 3, restored 0",
    ),
    "a reservation without movements": (
        "DELETE FROM stock_movements WHERE order_id = :sold",
        "I3 order {sold}: DEDUCTED, deducted 0, restored 0",
    ),
    "stock that was restored in part": (
        "UPDATE stock_movements SET delta = 1 WHERE kind = 'RESTORE'",
        "I3 order {returned}: RESTORED, deducted 2, restored 1",
    ),
    "a product deleted by hand": (
        "DELETE FROM products",
        "I3 product {tea}: deleted, with 5 movements left",
    ),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_the_checks_find(engine: AsyncEngine, violation: str) -> None:
    tea, sold, returned = await a_sale_a_return_and_a_rejection(engine)
    assert await violations(engine) == set()
    statement, finding = VIOLATIONS[violation]
    used = {"sold": sold} if ":sold" in statement else {}
    await execute(engine, statement, **used)
    expected = finding.format(tea=tea, sold=sold, returned=returned)
    assert expected in await violations(engine)


async def test_violations_are_a_table_and_exit_code_1(engine: AsyncEngine) -> None:
    tea, *_ = await a_sale_a_return_and_a_rejection(engine)
    await execute(engine, "UPDATE products SET stock = 7")
    done = await check_command(engine)
    assert done.code == 1
    assert done.line("I3  stock equals the sum of its ledger").split()[-1] == "1"
    assert done.line("I1 ").split()[-1] == "0"
    assert "stock 7, but initial 10" in done.line(f"product {tea}")
    assert done.stdout.endswith("1 finding\n")


async def test_the_checks_find_negative_stock_although_the_database_forbids_it(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 0)
    constraint = "ck_products_stock_not_negative"
    await execute(engine, f"ALTER TABLE products DROP CONSTRAINT {constraint}")
    try:
        await operations.adjust_stock(engine, tea, 1, "found one")
        await execute(engine, "UPDATE products SET stock = -1")
        found = await violations(engine)
    finally:
        await execute(engine, "UPDATE products SET stock = 1")
        await execute(
            engine, f"ALTER TABLE products ADD CONSTRAINT {constraint} CHECK (stock >= 0)"
        )
    assert f"I1 product {tea}: stock -1" in found


async def test_the_command_ends_with_2_and_a_line_if_it_cannot_check(engine: AsyncEngine) -> None:
    url = str(engine.url.set(host="127.0.0.1", port=free_port(), query={}))
    done = await run_command("inventory_service", "check", INVENTORY_DATABASE_URL=url)
    assert done.code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(" (DATABASE_UNAVAILABLE)\n")
    assert len(done.stderr.splitlines()) == 1
    done = await run_command("inventory_service", "check")
    assert done.code == 2
    assert "settings are missing or invalid" in done.stderr
    assert "INVENTORY_DATABASE_URL: Field required" in done.stderr


async def test_a_command_reads_the_environment_file_of_the_run_directory(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "environment.env").write_text(f"INVENTORY_DATABASE_URL='{url_of(engine)}'\n")
    done = await run_command("inventory_service", "check", RUN_DIR=str(tmp_path))
    assert done.code == 0, done
    given = ("--env-file", str(tmp_path / "environment.env"))
    assert (await run_command("inventory_service", "check", *given)).code == 0


async def wrong_stock(monitor: StockMonitor) -> dict[str, str]:
    return {finding.subject: finding.detail for finding in await monitor.find_wrong_stock()}


async def test_the_monitor_finds_stock_changed_by_hand_until_it_is_put_right(
    engine: AsyncEngine,
) -> None:
    tea, other = await product(engine, 10), await product(engine, 10)
    monitor = StockMonitor(engine)
    assert await wrong_stock(monitor) == {}
    await execute(engine, "UPDATE products SET stock = 7 WHERE id = :id", id=tea)
    for _ in range(3):
        assert await wrong_stock(monitor) == {f"product {tea}": "stock 7, ledger 10"}
        await deduct(engine, {other: 1})
    assert await wrong_stock(StockMonitor(engine)) == {f"product {tea}": "stock 7, ledger 10"}
    await operations.adjust_stock(engine, tea, 1, "found one")
    assert await wrong_stock(monitor) == {f"product {tea}": "stock 8, ledger 11"}
    await execute(engine, "UPDATE products SET stock = 11 WHERE id = :id", id=tea)
    assert await wrong_stock(monitor) == {}
    assert await wrong_stock(StockMonitor(engine)) == {}


async def test_a_change_by_hand_is_found_although_it_is_committed_after_later_ones(
    engine: AsyncEngine,
) -> None:
    tea, other = await product(engine, 10), await product(engine, 10)
    monitor = StockMonitor(engine)
    await monitor.find_wrong_stock()
    async with engine.begin() as by_hand:
        await by_hand.execute(text("UPDATE products SET stock = 9 WHERE id = :id"), {"id": tea})
        for _ in range(3):
            await deduct(engine, {other: 1})
            assert await wrong_stock(monitor) == {}
    assert await wrong_stock(monitor) == {f"product {tea}": "stock 9, ledger 10"}


async def test_stock_put_right_after_a_ledger_row_was_deleted_is_no_violation(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 1000)
    orders = [await deduct(engine, {tea: 1}) for _ in range(100)]
    monitor = StockMonitor(engine)
    assert await wrong_stock(monitor) == {}
    async with engine.connect() as connection:
        stored = await connection.scalar(text("SELECT balance FROM stock_balances"))
    assert stored == 900
    await execute(engine, "DELETE FROM stock_movements WHERE order_id = :id", id=orders[7])
    await execute(engine, "UPDATE products SET stock = 901")
    assert await wrong_stock(monitor) == {}
    await deduct(engine, {tea: 1})
    assert await wrong_stock(monitor) == {}


async def test_stored_balances_may_be_emptied_at_any_time(engine: AsyncEngine) -> None:
    tea = await product(engine, 10)
    monitor = StockMonitor(engine)
    assert await wrong_stock(monitor) == {}
    await deduct(engine, {tea: 1})
    await execute(engine, "TRUNCATE stock_balances")
    assert await wrong_stock(monitor) == {}
    await execute(engine, "UPDATE products SET stock = 10")
    assert await wrong_stock(monitor) == {f"product {tea}": "stock 10, ledger 9"}


async def test_a_change_by_hand_that_undoes_what_moved_since_the_last_run_is_found_by_the_next_move(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 10)
    monitor = StockMonitor(engine)
    assert await wrong_stock(monitor) == {}
    await deduct(engine, {tea: 3})
    await execute(engine, "UPDATE products SET stock = 10")
    assert await wrong_stock(monitor) == {}
    await deduct(engine, {tea: 1})
    assert await wrong_stock(monitor) == {f"product {tea}": "stock 9, ledger 6"}


async def test_a_run_compares_up_to_10_000_products_at_once(engine: AsyncEngine) -> None:
    await insert_products(engine, 10_000)
    await execute(
        engine,
        "UPDATE products SET stock = 1 WHERE id = (SELECT max(id) FROM products)"
        " OR id = (SELECT min(id) FROM products)",
    )
    monitor = StockMonitor(engine)
    for _ in range(3):
        assert list((await wrong_stock(monitor)).values()) == ["stock 1, ledger 0"] * 2


async def test_more_products_are_compared_in_turn_and_what_was_found_in_every_run(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "SLICE_SIZE", 10)
    first, *_, last = await insert_products(engine, 25)
    await execute(engine, "UPDATE products SET stock = 1 WHERE id IN (:a, :b)", a=first, b=last)
    monitor = StockMonitor(engine)
    found = [list(await wrong_stock(monitor)) for _ in range(7)]
    both = [f"product {first}", f"product {last}"]
    assert found == [both[:1], both[:1], both, both, both, both, both]
    await execute(engine, "UPDATE products SET stock = 0 WHERE id = :id", id=first)
    assert list(await wrong_stock(monitor)) == both[1:]


async def test_a_hundred_products_are_reported_at_most_and_those_found_before_again(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "SLICE_SIZE", 200)
    products = await insert_products(engine, 400)
    monitor = StockMonitor(engine)
    await wrong_stock(monitor)
    await execute(engine, "UPDATE products SET stock = 1")
    expected = [f"product {product_id}" for product_id in products[200:300]]
    for _ in range(3):
        assert list(await wrong_stock(monitor)) == expected


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
    statement = text(f"EXPLAIN {monitoring._COMPARE.text}").bindparams(
        *monitoring._COMPARE._bindparams.values()
    )
    values = {"after": 0, "found": [], "slice_size": 10_000, "max_suspects": 100}
    async with engine.connect() as connection:
        plan = "\n".join(await connection.scalars(statement, values))
    assert "ix_stock_movements_product_id_id" in plan
    assert "Seq Scan on stock_movements" not in plan
    assert "pk_stock_movements" not in plan


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


async def test_the_monitor_finds_nothing_among_concurrent_updates(engine: AsyncEngine) -> None:
    teas = [await product(engine, 300) for _ in range(4)]
    finished = asyncio.Event()

    async def buy_and_return(number: int) -> None:
        for _ in range(12):
            order_id = await deduct(engine, {teas[number % 4]: 1, teas[(number + 1) % 4]: 2})
            if number % 2:
                await restore(engine, order_id)
            await operations.adjust_stock(engine, teas[0], 1, "found one")

    async def watch() -> int:
        monitor, runs = StockMonitor(engine), 0
        while not finished.is_set():
            assert await wrong_stock(monitor) == {}
            runs += 1
        return runs

    watching = [asyncio.create_task(watch()) for _ in range(2)]
    await asyncio.gather(*(buy_and_return(number) for number in range(12)))
    finished.set()
    assert min(await asyncio.gather(*watching)) > 3
    assert await wrong_stock(StockMonitor(engine)) == {}
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
    tea = await product(engine, 10)
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
