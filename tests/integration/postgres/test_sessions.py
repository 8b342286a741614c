"""Sessions and statements that end early are reported as Unavailable, and replaced."""

import asyncio
import time

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.errors import Unavailable
from service_kit.postgres import engine as postgres_engine
from service_kit.postgres.engine import autocommit, open_engine, transaction
from tests.integration.postgres.statements import (
    backend_pid,
    can_query,
    execute,
    server_sleeps,
    sleep_on_server,
    terminate_sessions,
)
from tests.support.waiting import eventually


@pytest.mark.parametrize("how", ["terminated", "cancelled"])
async def test_a_statement_that_an_operator_ended_is_reported_as_unavailable(
    engine: AsyncEngine, how: str
) -> None:
    running = asyncio.create_task(sleep_on_server(engine))
    await server_sleeps(engine)
    function = {"terminated": "pg_terminate_backend", "cancelled": "pg_cancel_backend"}[how]
    async with engine.connect() as connection:
        await connection.execute(
            text(f"SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        )
    with pytest.raises(Unavailable) as error:
        await running
    assert error.value.reason == "DATABASE_UNAVAILABLE"
    assert await can_query(engine)


async def test_a_session_terminated_between_statements_is_reported_as_unavailable_and_rolled_back(
    engine: AsyncEngine,
) -> None:
    async def cut_off() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("UPDATE account SET amount = 0"))
            await terminate_sessions(engine, await backend_pid(connection))
            await connection.execute(text("UPDATE account SET amount = 1"))

    with pytest.raises(Unavailable):
        await cut_off()
    async with transaction(engine) as connection:
        assert list(await connection.scalars(text("SELECT amount FROM account"))) == [100, 100]


async def test_a_session_terminated_before_the_commit_is_reported_as_unavailable(
    engine: AsyncEngine,
) -> None:
    async def cut_off() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("UPDATE account SET amount = 0"))
            await terminate_sessions(engine, await backend_pid(connection))

    with pytest.raises(Unavailable):
        await cut_off()


async def test_the_pool_replaces_sessions_that_ended(url: str, engine: AsyncEngine) -> None:
    async with engine.connect() as one, engine.connect() as two:
        pids = [await backend_pid(one), await backend_pid(two)]
    async with open_engine(url, "operator") as operator:
        await terminate_sessions(operator, *pids)
    assert all(await asyncio.gather(can_query(engine), can_query(engine)))
    async with autocommit(engine) as connection:
        assert await backend_pid(connection) not in pids


async def test_a_session_that_was_idle_in_a_transaction_for_too_long_is_reported_as_unavailable(
    engine: AsyncEngine,
) -> None:
    async def idle() -> None:
        async with transaction(engine) as connection:
            own = await backend_pid(connection)
            await connection.execute(text("SET idle_in_transaction_session_timeout = '20ms'"))

            async def alive() -> object:
                async with engine.connect() as other:
                    query = text("SELECT pid FROM pg_stat_activity WHERE pid = :pid")
                    return await other.scalar(query, {"pid": own})

            await eventually(alive, lambda found: found is None)
            await connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await idle()
    assert await can_query(engine)


async def test_the_servers_statement_timeout_is_reported_as_unavailable(
    engine: AsyncEngine,
) -> None:
    with pytest.raises(Unavailable) as error:
        await execute(engine, "SET LOCAL statement_timeout = '50ms'", "SELECT pg_sleep(30)")
    assert error.value.metadata == {"state": "57014"}
    assert await can_query(engine)


async def test_the_clients_statement_deadline_is_reported_as_unavailable(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "STATEMENT_SECONDS", 0.3)
    async with open_engine(url, "tests", pool_size=1) as impatient:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await execute(impatient, "SET LOCAL statement_timeout = 0", "SELECT pg_sleep(30)")
        assert time.monotonic() - started < 2
        assert await can_query(impatient)


async def test_a_full_pool_is_reported_as_unavailable_after_its_deadline(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "CONNECT_SECONDS", 0.2)
    async with open_engine(url, "tests", pool_size=1) as small:
        async with transaction(small):
            with pytest.raises(Unavailable):
                await can_query(small)
        assert await can_query(small)
