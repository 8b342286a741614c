"""The audit of stock and orders: what it finds, what it does not mistake for a fault."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import inventory_service.__main__ as inventory_main
from inventory_service import auditor, operations
from inventory_service.audit import run_audit
from inventory_service.auditor import Auditor
from inventory_service.models import Kind, Outcome, StockUpdate
from inventory_service.settings import Settings
from service_kit.postgres.engine import open_engine
from tests.support.cli import CommandResult, run_command, url_of
from tests.support.infrastructure import Infrastructure
from tests.support.services import inventory_running
from tests.support.waiting import eventually, free_port


@pytest_asyncio.fixture(scope="module")
async def migrated(inventory_database_url: str) -> str:
    settings = Settings(inventory_database_url=inventory_database_url)
    await inventory_main.migrate_database(settings, asyncio.Event())
    return inventory_database_url


@pytest_asyncio.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    """The inventory database without products."""
    async with open_engine(migrated, "tests", pool_size=16) as found:
        await execute(
            found, "TRUNCATE products, stock_movements, reservations, audit.stock_balances"
        )
        yield found


async def execute(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def product(engine: AsyncEngine, stock: int = 1000) -> int:
    created = await operations.create_product(
        engine, name="Tea", description="", price_cents=250, stock=stock, product_id=None
    )
    return int(created.id)


async def moved(
    engine: AsyncEngine,
    items: Mapping[int, int],
    kind: Kind = Kind.DEDUCT,
    order_id: uuid.UUID | None = None,
) -> uuid.UUID:
    order_id = order_id or uuid.uuid4()
    await operations.update_stock(engine, [StockUpdate(order_id, kind, items)])
    return order_id


async def audit(engine: AsyncEngine) -> set[str]:
    """What the audit finds, a line each."""
    return {
        f"{rule.invariant} {finding.subject}: {finding.detail}"
        async for rule, found in run_audit(engine)
        for finding in found
    }


async def audit_tool(engine: AsyncEngine) -> CommandResult:
    return await run_command("inventory_service", "audit", INVENTORY_DATABASE_URL=url_of(engine))


async def a_sale_a_return_and_a_refusal(engine: AsyncEngine) -> tuple[int, uuid.UUID, uuid.UUID]:
    """A product, an order that holds 3 of it, and one that gave 2 back."""
    tea = await product(engine, 10)
    sold = await moved(engine, {tea: 3})
    returned = await moved(engine, {tea: 2})
    await moved(engine, {}, Kind.RESTORE, returned)
    await moved(engine, {tea: 11})
    await moved(engine, {}, Kind.RESTORE)
    await operations.adjust_stock(engine, tea, 5, "found some")
    return tea, sold, returned


async def test_when_all_is_well_the_audit_says_so_and_ends_with_0(engine: AsyncEngine) -> None:
    await a_sale_a_return_and_a_refusal(engine)
    done = await audit_tool(engine)
    assert done.code == 0, done
    for invariant in ("I1", "I3", "I5"):
        assert invariant in done.stdout
    assert "off\n" not in done.stdout
    assert done.stderr == ""


FAULTS = {
    "a stock figure changed by hand": (
        "UPDATE products SET stock = stock - 4",
        "I3 product {tea}: stock 8, but initial 10 + adjusted 5 - deducted 5 + restored 2 = 12",
    ),
    "a ledger row deleted": (
        "DELETE FROM stock_movements WHERE kind = 'ADJUSTMENT'",
        "I3 product {tea}: stock 12, but initial 10 + adjusted 0 - deducted 5 + restored 2 = 7",
    ),
    "a movement recorded twice": (
        (
            "INSERT INTO stock_movements (product_id, kind, delta, order_id)"
            " SELECT product_id, kind, delta, order_id FROM stock_movements WHERE order_id = :sold"
        ),
        "I5 order {sold}: DEDUCT of product {tea}: 2 times",
    ),
    "a deduction that the order's decision does not cover": (
        "UPDATE reservations SET state = 'REJECTED' WHERE order_id = :sold",
        "I3 order {sold}: REJECTED, took 3, gave back 0",
    ),
    "a decision that was lost": (
        "DELETE FROM reservations WHERE order_id = :sold",
        "I3 order {sold}: not decided, took 3, gave back 0",
    ),
    "a decision without movements": (
        "DELETE FROM stock_movements WHERE order_id = :sold",
        "I3 order {sold}: DEDUCTED, took 0, gave back 0",
    ),
    "stock that was not all given back": (
        "UPDATE stock_movements SET delta = 1 WHERE kind = 'RESTORE'",
        "I3 order {returned}: RESTORED, took 2, gave back 1",
    ),
    "a product deleted by hand": (
        "DELETE FROM products",
        "I3 product {tea}: is gone, with 5 movements left",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_audit_finds_and_names(engine: AsyncEngine, fault: str) -> None:
    tea, sold, returned = await a_sale_a_return_and_a_refusal(engine)
    assert await audit(engine) == set()
    statement, told = FAULTS[fault]
    used = {"sold": sold} if ":sold" in statement else {}
    await execute(engine, statement, **used)
    assert told.format(tea=tea, sold=sold, returned=returned) in await audit(engine)


async def test_what_is_off_is_a_table_and_exit_code_1(engine: AsyncEngine) -> None:
    tea, *_ = await a_sale_a_return_and_a_refusal(engine)
    await execute(engine, "UPDATE products SET stock = 7")
    done = await audit_tool(engine)
    assert done.code == 1
    assert done.line("I3  stock is what the ledger adds up to").split()[-1] == "1"
    assert done.line("I5 ").split()[-1] == "0"
    assert "stock 7, but initial 10" in done.line(f"product {tea}")
    assert done.stdout.endswith("1 off\n")


async def test_the_audit_finds_negative_stock_although_the_schema_forbids_it(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 0)
    constraint = "ck_products_stock_not_negative"
    await execute(engine, f"ALTER TABLE products DROP CONSTRAINT {constraint}")
    try:
        await operations.adjust_stock(engine, tea, 1, "found one")
        await execute(engine, "UPDATE products SET stock = -1")
        found = await audit(engine)
    finally:
        await execute(engine, "UPDATE products SET stock = 1")
        await execute(
            engine, f"ALTER TABLE products ADD CONSTRAINT {constraint} CHECK (stock >= 0)"
        )
    assert f"I1 product {tea}: stock -1" in found


async def test_the_audit_ends_with_2_and_a_line_if_it_cannot_look(engine: AsyncEngine) -> None:
    url = str(engine.url.set(host="127.0.0.1", port=free_port(), query={}))
    done = await run_command("inventory_service", "audit", INVENTORY_DATABASE_URL=url)
    assert done.code == 2
    assert done.stderr == "error: the database does not answer (DATABASE_UNAVAILABLE)\n"
    done = await run_command("inventory_service", "audit")
    assert done.code == 2
    assert "INVENTORY_DATABASE_URL: Field required" in done.stderr


async def test_a_tool_finds_what_the_launcher_wrote_in_the_run_directory(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "environment.env").write_text(f"INVENTORY_DATABASE_URL='{url_of(engine)}'\n")
    done = await run_command("inventory_service", "audit", RUN_DIR=str(tmp_path))
    assert done.code == 0, done
    given = ("--env-file", str(tmp_path / "environment.env"))
    assert (await run_command("inventory_service", "audit", *given)).code == 0


async def wrong(watch: Auditor) -> dict[str, str]:
    return {finding.subject: finding.detail for finding in await watch.wrong_stock()}


async def test_a_look_finds_a_stock_figure_that_was_changed_by_hand_until_it_is_put_right(
    engine: AsyncEngine,
) -> None:
    tea, other = await product(engine, 10), await product(engine, 10)
    watch = Auditor(engine)
    assert await wrong(watch) == {}
    await execute(engine, "UPDATE products SET stock = 7 WHERE id = :id", id=tea)
    for _ in range(3):
        assert await wrong(watch) == {f"product {tea}": "stock 7, ledger 10"}
        await moved(engine, {other: 1})
    assert await wrong(Auditor(engine)) == {f"product {tea}": "stock 7, ledger 10"}
    await operations.adjust_stock(engine, tea, 1, "found one")
    assert await wrong(watch) == {f"product {tea}": "stock 8, ledger 11"}
    await execute(engine, "UPDATE products SET stock = 11 WHERE id = :id", id=tea)
    assert await wrong(watch) == {}
    assert await wrong(Auditor(engine)) == {}


async def test_a_change_by_hand_is_found_also_if_it_is_committed_after_later_ones(
    engine: AsyncEngine,
) -> None:
    tea, other = await product(engine, 10), await product(engine, 10)
    watch = Auditor(engine)
    await watch.wrong_stock()
    async with engine.begin() as by_hand:
        await by_hand.execute(text("UPDATE products SET stock = 9 WHERE id = :id"), {"id": tea})
        for _ in range(3):
            await moved(engine, {other: 1})
            assert await wrong(watch) == {}
    assert await wrong(watch) == {f"product {tea}": "stock 9, ledger 10"}


async def test_a_ledger_row_deleted_long_ago_is_no_mistake_of_the_stock_put_right_since(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 1000)
    orders = [await moved(engine, {tea: 1}) for _ in range(100)]
    watch = Auditor(engine)
    assert await wrong(watch) == {}
    async with engine.connect() as connection:
        kept = await connection.scalar(text("SELECT balance FROM audit.stock_balances"))
    assert kept == 900
    await execute(engine, "DELETE FROM stock_movements WHERE order_id = :id", id=orders[7])
    await execute(engine, "UPDATE products SET stock = 901")
    assert await wrong(watch) == {}
    await moved(engine, {tea: 1})
    assert await wrong(watch) == {}


async def twice(watch: Auditor) -> dict[str, str]:
    return {finding.subject: finding.detail for finding in await watch.moved_twice()}


ONCE_MORE = (
    "INSERT INTO stock_movements (product_id, kind, delta, order_id)"
    " SELECT product_id, kind, delta, order_id FROM stock_movements WHERE order_id = :id"
)


async def test_a_look_finds_a_movement_made_twice_although_the_stock_adds_up(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 10)
    watch = Auditor(engine)
    assert await twice(watch) == {}
    order_id = await moved(engine, {tea: 3})
    await moved(engine, {}, Kind.RESTORE, await moved(engine, {tea: 1}))
    assert await twice(watch) == {}
    await execute(engine, ONCE_MORE, id=order_id)
    await execute(engine, "UPDATE products SET stock = stock - 3")
    for _ in range(4):
        assert await wrong(watch) == {}
        assert await twice(watch) == {f"order {order_id}": f"DEDUCT of product {tea}: 2 times"}
        await moved(engine, {tea: 1})
    newest = "SELECT max(id) FROM stock_movements WHERE order_id = :id"
    await execute(engine, f"DELETE FROM stock_movements WHERE id = ({newest})", id=order_id)
    assert await twice(watch) == {}


async def test_a_movement_made_twice_is_found_also_if_it_is_committed_after_later_ones(
    engine: AsyncEngine,
) -> None:
    tea, other = await product(engine, 10), await product(engine, 10)
    order_id = await moved(engine, {tea: 3})
    watch = Auditor(engine)
    assert await twice(watch) == {}
    assert await twice(watch) == {}
    async with engine.begin() as late:
        await late.execute(text(ONCE_MORE), {"id": order_id})
        await moved(engine, {other: 1})
        assert await twice(watch) == {}
    assert await twice(watch) == {f"order {order_id}": f"DEDUCT of product {tea}: 2 times"}


async def test_the_first_look_is_at_every_product(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are looked at with one statement."""
    assert auditor._SLICE < 25_000
    await execute(
        engine,
        "INSERT INTO products (name, description, price_cents, stock)"
        " SELECT 'Tea', '', 250, 0 FROM generate_series(1, 25000)",
    )
    await execute(
        engine,
        "UPDATE products SET stock = 1 WHERE id = (SELECT max(id) FROM products)"
        " OR id = (SELECT min(id) FROM products)",
    )
    assert list((await wrong(Auditor(engine))).values()) == ["stock 1, ledger 0"] * 2


async def test_no_look_among_concurrent_updates_finds_anything(engine: AsyncEngine) -> None:
    teas = [await product(engine, 300) for _ in range(4)]
    finished = asyncio.Event()

    async def buy_and_return(number: int) -> None:
        for _ in range(12):
            items = {teas[number % 4]: 1, teas[(number + 1) % 4]: 2}
            order_id = await moved(engine, items)
            if number % 2:
                await moved(engine, {}, Kind.RESTORE, order_id)
            await operations.adjust_stock(engine, teas[0], 1, "found one")

    async def look() -> int:
        watch, looks = Auditor(engine), 0
        while not finished.is_set():
            assert await wrong(watch) == {}
            assert await twice(watch) == {}
            looks += 1
        return looks

    looking = [asyncio.create_task(look()) for _ in range(2)]
    await asyncio.gather(*(buy_and_return(number) for number in range(12)))
    finished.set()
    assert min(await asyncio.gather(*looking)) > 3
    assert await wrong(Auditor(engine)) == {}
    assert await audit(engine) == set()


async def test_a_dry_run_of_an_update_answers_like_the_update_and_changes_nothing(
    engine: AsyncEngine,
) -> None:
    tea = await product(engine, 5)
    first, second = (StockUpdate(uuid.uuid4(), Kind.DEDUCT, {tea: quantity}) for quantity in (3, 3))
    for _ in range(2):
        rehearsed = await operations.update_stock(engine, [first, second], validate_only=True)
        outcomes = [each.outcome for each in rehearsed]
        assert outcomes == [Outcome.APPLIED, Outcome.INSUFFICIENT_STOCK]
    assert (await operations.get_product(engine, tea)).stock == 5
    assert await operations.get_reservations(engine, [first.order_id]) == []
    assert await operations.update_stock(engine, [first, second]) == rehearsed


@pytest_asyncio.fixture(scope="module")
async def observed(infrastructure: Infrastructure) -> AsyncIterator[tuple[AsyncEngine, str]]:
    """A running service's database, and where it serves its metrics."""
    port = free_port()
    async with (
        infrastructure.database() as url,
        inventory_running(url, inventory_service_metrics_port=port) as service,
    ):
        yield service.engine, f"http://127.0.0.1:{port}/metrics"


def gauge(url: str) -> Callable[[], Awaitable[float]]:
    async def read() -> float:
        name = 'audit_findings{rule="stock_equals_ledger"} '
        async with httpx.AsyncClient() as client:
            page = (await client.get(url)).raise_for_status().text
        return next(
            (float(line.removeprefix(name)) for line in page.splitlines() if line.startswith(name)),
            -1.0,
        )

    return read


async def test_a_running_service_tells_of_stock_changed_by_hand_within_5_s(
    observed: tuple[AsyncEngine, str], capsys: pytest.CaptureFixture[str]
) -> None:
    engine, url = observed
    tea = await product(engine, 10)
    await eventually(gauge(url), lambda count: count == 0)
    await execute(engine, "UPDATE products SET stock = 9 WHERE id = :id", id=tea)
    await eventually(gauge(url), lambda count: count == 1, within=5)
    said = capsys.readouterr().out
    assert "audit: broken" in said
    assert f"product {tea}" in said
    await operations.adjust_stock(engine, tea, 1, "found one")
    await execute(engine, "UPDATE products SET stock = 11 WHERE id = :id", id=tea)
    await eventually(gauge(url), lambda count: count == 0, within=5)
    assert "audit: holds again" in capsys.readouterr().out
