"""The consistency checks on demand: what they find, and the command that runs them."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service import operations
from tests.service.inventory.shop import create_product, deduct, execute, restore, violations
from tests.support.cli import CommandResult, run_command, url_of
from tests.support.waiting import free_port


async def check_command(engine: AsyncEngine) -> CommandResult:
    return await run_command("inventory_service", "check", INVENTORY_DATABASE_URL=url_of(engine))


async def a_sale_a_return_and_a_rejection(engine: AsyncEngine) -> tuple[int, uuid.UUID, uuid.UUID]:
    """A product, an order that holds 3 of it, and one that gave 2 back."""
    tea = await create_product(engine, 10)
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
async def test_a_violation_is_found_and_named(engine: AsyncEngine, violation: str) -> None:
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


async def test_negative_stock_is_found_although_the_database_forbids_it(
    engine: AsyncEngine,
) -> None:
    tea = await create_product(engine, 0)
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
