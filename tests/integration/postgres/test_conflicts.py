"""Deadlocks and serialization failures are Aborted, and retried."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.errors import Aborted
from service_kit.postgres.engine import retrying_conflicts, transaction
from tests.integration.postgres.statements import execute


async def test_a_deadlock_is_aborted_and_the_retried_operation_succeeds(
    engine: AsyncEngine,
) -> None:
    ready = asyncio.Barrier(2)
    tries = 0

    @retrying_conflicts
    async def move(first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        async with transaction(engine) as connection:
            change = text("UPDATE account SET amount = amount + :delta WHERE id = :id")
            await connection.execute(change, {"id": first, "delta": -1})
            if tries <= 2:
                await ready.wait()  # each holds the row that the other needs
            await connection.execute(change, {"id": second, "delta": 1})

    await asyncio.gather(move(1, 2), move(2, 1))
    assert tries == 3
    async with transaction(engine) as connection:
        assert list(await connection.scalars(text("SELECT amount FROM account"))) == [100, 100]


async def test_a_serialization_failure_is_aborted(engine: AsyncEngine) -> None:
    change = "UPDATE account SET amount = amount"

    async def lose() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            await connection.execute(text("SELECT * FROM account"))
            await execute(engine, change)
            await connection.execute(text(change))

    with pytest.raises(Aborted) as error:
        await lose()
    assert error.value.reason == "DATABASE_CONFLICT"


async def test_a_lasting_conflict_is_raised_after_five_attempts() -> None:
    tries = 0

    @retrying_conflicts
    async def hopeless() -> None:
        nonlocal tries
        tries += 1
        raise Aborted("DATABASE_CONFLICT", "again")

    with pytest.raises(Aborted):
        await hopeless()
    assert tries == 5
