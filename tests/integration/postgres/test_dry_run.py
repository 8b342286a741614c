"""Transactions that are always rolled back, and transactions that only read."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.errors import Unavailable
from service_kit.postgres.engine import dry_run, snapshot, transaction
from tests.integration.postgres.statements import execute


async def amounts(engine: AsyncEngine) -> list[int]:
    async with transaction(engine) as connection:
        return list(await connection.scalars(text("SELECT amount FROM account ORDER BY id")))


async def test_a_dry_run_shows_its_changes_and_rolls_them_back(engine: AsyncEngine) -> None:
    async with dry_run(engine) as connection:
        changed = await connection.scalars(text("UPDATE account SET amount = 7 RETURNING amount"))
        assert list(changed) == [7, 7]
    assert await amounts(engine) == [100, 100]


async def test_an_error_in_a_dry_run_is_mapped_as_in_a_transaction(engine: AsyncEngine) -> None:
    async def sleep() -> None:
        async with dry_run(engine) as connection:
            await connection.execute(text("SET LOCAL statement_timeout = '50ms'"))
            await connection.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(Unavailable) as error:
        await sleep()
    assert error.value.metadata == {"state": "57014"}


async def test_a_snapshot_does_not_see_later_changes(engine: AsyncEngine) -> None:
    count = text("SELECT count(*) FROM account")
    async with snapshot(engine) as connection:
        before = await connection.scalar(count)
        await execute(engine, "INSERT INTO account VALUES (3, 100)")
        assert await connection.scalar(count) == before
    await execute(engine, "DELETE FROM account WHERE id = 3")


async def test_a_snapshot_cannot_write(engine: AsyncEngine) -> None:
    with pytest.raises(Unavailable) as error:
        async with snapshot(engine) as connection:
            await connection.execute(text("UPDATE account SET amount = 7"))
    assert error.value.metadata == {"state": "25006"}
