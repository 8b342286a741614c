"""What a real PostgreSQL does to its clients, and what services make of it."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import inventory_service
from service_kit import database
from service_kit.errors import Aborted, Unavailable
from service_kit.postgres.engine import autocommit, open_engine, retrying_conflicts, transaction
from service_kit.postgres.migrations import migrate
from tests.support.infrastructure import Infrastructure
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually, free_port

MIGRATIONS = Path(inventory_service.__file__).with_name("migrations")


@pytest_asyncio.fixture(scope="module")
async def url(order_database_url: str) -> str:
    """A database with two accounts."""
    async with open_engine(order_database_url, "tests") as engine, engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE account (id int PRIMARY KEY, amount bigint CHECK (amount >= 0))")
        )
        await connection.execute(text("INSERT INTO account VALUES (1, 100), (2, 100)"))
    return order_database_url


@pytest_asyncio.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(url, "tests", pool_size=2) as found:
        yield found


@pytest_asyncio.fixture
async def behind_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[TcpProxy, AsyncEngine]]:
    """An impatient engine that reaches the database through a proxy."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.4)
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.4)
    async with proxied(url) as (proxy, through), open_engine(through, "tests", 2) as found:
        yield proxy, found


async def pid(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)


async def answers(engine: AsyncEngine) -> bool:
    async with transaction(engine) as connection:
        return bool(await connection.scalar(text("SELECT true")))


async def answers_again(engine: AsyncEngine) -> None:
    async def probe() -> bool:
        try:
            return await answers(engine)
        except Unavailable:
            return False

    await eventually(probe)


async def is_sleeping(engine: AsyncEngine) -> None:
    """Return once some session runs pg_sleep."""
    asleep = text("""
        SELECT pid FROM pg_stat_activity
        WHERE query LIKE 'SELECT pg_sleep%' AND wait_event = 'PgSleep'
          AND datname = current_database()
    """)

    async def probe() -> object:
        async with engine.connect() as connection:
            return await connection.scalar(asleep)

    await eventually(probe)


async def terminate(engine: AsyncEngine, *pids: int) -> None:
    async with engine.connect() as connection:
        for each in pids:
            # Waits until the session is gone.
            gone = text("SELECT pg_terminate_backend(:pid, 5000)")
            assert await connection.scalar(gone, {"pid": each})


async def execute(engine: AsyncEngine, *statements: str) -> None:
    """Run statements in one transaction."""
    async with transaction(engine) as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def sleep_in(engine: AsyncEngine) -> None:
    await execute(engine, "SELECT pg_sleep(30)")


@pytest.mark.parametrize("how", ["terminated", "cancelled"])
async def test_a_statement_cut_short_by_an_operator_is_unavailable(
    engine: AsyncEngine, how: str
) -> None:
    running = asyncio.create_task(sleep_in(engine))
    await is_sleeping(engine)
    function = {"terminated": "pg_terminate_backend", "cancelled": "pg_cancel_backend"}[how]
    async with engine.connect() as connection:
        await connection.execute(
            text(f"SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        )
    with pytest.raises(Unavailable) as failure:
        await running
    assert failure.value.reason == "DATABASE_UNAVAILABLE"
    assert await answers(engine)


async def test_a_session_terminated_between_statements_is_unavailable_and_rolled_back(
    engine: AsyncEngine,
) -> None:
    async def cut_off() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("UPDATE account SET amount = 0"))
            await terminate(engine, await pid(connection))
            await connection.execute(text("UPDATE account SET amount = 1"))

    with pytest.raises(Unavailable):
        await cut_off()
    async with transaction(engine) as connection:
        assert list(await connection.scalars(text("SELECT amount FROM account"))) == [100, 100]


async def test_a_session_terminated_before_the_commit_is_unavailable(engine: AsyncEngine) -> None:
    async def cut_off() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("UPDATE account SET amount = 0"))
            await terminate(engine, await pid(connection))

    with pytest.raises(Unavailable):
        await cut_off()


async def test_the_pool_replaces_sessions_that_died_in_it(url: str, engine: AsyncEngine) -> None:
    async with engine.connect() as one, engine.connect() as two:
        pids = [await pid(one), await pid(two)]
    async with open_engine(url, "operator") as operator:
        await terminate(operator, *pids)
    assert all(await asyncio.gather(answers(engine), answers(engine)))
    async with autocommit(engine) as connection:
        assert await pid(connection) not in pids


async def test_a_session_that_idled_too_long_in_a_transaction_is_unavailable(
    engine: AsyncEngine,
) -> None:
    async def idle() -> None:
        async with transaction(engine) as connection:
            own = await pid(connection)
            await connection.execute(text("SET idle_in_transaction_session_timeout = '20ms'"))

            async def alive() -> object:
                async with engine.connect() as other:
                    query = text("SELECT pid FROM pg_stat_activity WHERE pid = :pid")
                    return await other.scalar(query, {"pid": own})

            await eventually(alive, lambda found: found is None)
            await connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await idle()
    assert await answers(engine)


async def test_the_servers_statement_timeout_is_unavailable(engine: AsyncEngine) -> None:
    with pytest.raises(Unavailable) as failure:
        await execute(engine, "SET LOCAL statement_timeout = '50ms'", "SELECT pg_sleep(30)")
    assert failure.value.metadata == {"state": "57014"}
    assert await answers(engine)


async def test_the_clients_own_statement_deadline_is_unavailable(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.3)
    async with open_engine(url, "tests", pool_size=1) as impatient:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await execute(impatient, "SET LOCAL statement_timeout = 0", "SELECT pg_sleep(30)")
        assert time.monotonic() - started < 2
        assert await answers(impatient)


async def test_a_full_pool_is_unavailable_in_time(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.2)
    async with open_engine(url, "tests", pool_size=1) as small:
        async with transaction(small):
            with pytest.raises(Unavailable):
                await answers(small)
        assert await answers(small)


@pytest.mark.parametrize("place", ["port", "socket"])
async def test_a_server_that_refuses_connections_is_unavailable(url: str, place: str) -> None:
    nowhere = {
        "port": make_url(url).set(host="127.0.0.1", port=free_port(), query={}),
        "socket": make_url(url).set(query={"host": "/tmp/no-such-folder"}),
    }[place]
    async with open_engine(nowhere.render_as_string(hide_password=False), "tests") as engine:
        with pytest.raises(Unavailable):
            await answers(engine)


async def test_a_server_without_free_slots_is_unavailable(
    infrastructure: Infrastructure, url: str
) -> None:
    name = f"limited_{uuid.uuid4().hex}"
    async with open_engine(infrastructure.admin_url, "tests") as admin:
        async with autocommit(admin) as connection:
            await connection.execute(
                text(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' CONNECTION LIMIT 0")
            )
        limited = make_url(url).set(username=name, password="secret")
        async with open_engine(limited.render_as_string(hide_password=False), "tests") as engine:
            with pytest.raises(Unavailable) as failure:
                await answers(engine)
        async with autocommit(admin) as connection:
            await connection.execute(text(f"DROP ROLE {name}"))
    assert failure.value.metadata == {"state": "53300"}


async def test_a_database_closed_for_maintenance_is_unavailable(
    infrastructure: Infrastructure,
) -> None:
    async with (
        infrastructure.database() as closed,
        open_engine(infrastructure.admin_url, "tests") as admin,
        open_engine(closed, "tests") as engine,
    ):
        allow = f"ALTER DATABASE {make_url(closed).database} ALLOW_CONNECTIONS"
        async with autocommit(admin) as connection:
            await connection.execute(text(f"{allow} false"))
        with pytest.raises(Unavailable):
            await answers(engine)
        async with autocommit(admin) as connection:
            await connection.execute(text(f"{allow} true"))
        assert await answers(engine)


async def test_a_server_that_became_a_read_only_replica_is_unavailable(
    engine: AsyncEngine,
) -> None:
    with pytest.raises(Unavailable):
        await execute(engine, "SET TRANSACTION READ ONLY", "UPDATE account SET amount = 0")


async def test_a_service_whose_password_was_changed_finds_the_database_unavailable(
    infrastructure: Infrastructure, url: str
) -> None:
    name = f"rotated_{uuid.uuid4().hex}"
    async with open_engine(infrastructure.admin_url, "tests") as admin:
        await execute(admin, f"CREATE ROLE {name} LOGIN PASSWORD 'after'")
        before = make_url(url).set(username=name, password="before")
        async with open_engine(before.render_as_string(hide_password=False), "tests") as engine:
            with pytest.raises(Unavailable) as failure:
                await answers(engine)
        await execute(admin, f"DROP ROLE {name}")
    assert failure.value.metadata == {"state": "28P01"}


async def test_a_database_renamed_for_a_restore_is_unavailable_until_it_is_back(
    infrastructure: Infrastructure,
) -> None:
    async with (
        infrastructure.database() as url,
        open_engine(infrastructure.admin_url, "tests") as admin,
        open_engine(url, "tests") as engine,
    ):
        name = make_url(url).database
        await execute(admin, f"ALTER DATABASE {name} RENAME TO {name}_aside")
        with pytest.raises(Unavailable) as failure:
            await answers(engine)
        await execute(admin, f"ALTER DATABASE {name}_aside RENAME TO {name}")
        assert await answers(engine)
    assert failure.value.metadata == {"state": "3D000"}


def raising(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize("state", ["28000", "42501", "XX000", "XX001", "25P03"])
async def test_what_whoever_runs_the_server_will_put_right_is_unavailable(
    engine: AsyncEngine, state: str
) -> None:
    with pytest.raises(Unavailable) as failure:
        await execute(engine, raising(state))
    assert failure.value.metadata == {"state": state}


@pytest.mark.parametrize("state", ["42703", "42P01", "42601", "22012", "22P02", "23505", "P0001"])
async def test_a_fault_of_ours_stays_what_it_is(engine: AsyncEngine, state: str) -> None:
    with pytest.raises(DBAPIError):
        await execute(engine, raising(state))


async def test_a_reset_connection_is_unavailable_and_replaced(
    behind_proxy: tuple[TcpProxy, AsyncEngine], engine: AsyncEngine
) -> None:
    proxy, through = behind_proxy
    async with through.connect() as connection:
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.commit()
    running = asyncio.create_task(sleep_in(through))
    await is_sleeping(engine)
    proxy.drop()
    with pytest.raises(Unavailable):
        await running
    assert await answers(through)


async def test_a_server_that_is_gone_is_unavailable_and_used_again_once_back(
    behind_proxy: tuple[TcpProxy, AsyncEngine],
) -> None:
    proxy, through = behind_proxy
    assert await answers(through)
    await proxy.cut()
    for _ in range(5):  # more than the pool has connections: none leaks
        with pytest.raises(Unavailable):
            await answers(through)
    await proxy.resume()
    await answers_again(through)


async def test_a_server_that_hangs_is_unavailable_in_time_and_used_again_once_back(
    behind_proxy: tuple[TcpProxy, AsyncEngine],
) -> None:
    proxy, through = behind_proxy
    assert await answers(through)
    proxy.pause()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await answers(through)
    assert time.monotonic() - started < 9
    await proxy.resume()
    await answers_again(through)


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
                await ready.wait()  # both hold what the other wants
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

    with pytest.raises(Aborted) as failure:
        await lose()
    assert failure.value.reason == "DATABASE_CONFLICT"


async def test_a_conflict_that_does_not_go_away_is_reported_after_a_few_tries() -> None:
    tries = 0

    @retrying_conflicts
    async def hopeless() -> None:
        nonlocal tries
        tries += 1
        raise Aborted("DATABASE_CONFLICT", "again")

    with pytest.raises(Aborted):
        await hopeless()
    assert tries == 5


async def test_a_broken_constraint_passes_as_it_is(engine: AsyncEngine) -> None:
    with pytest.raises(IntegrityError):
        await execute(engine, "UPDATE account SET amount = -1")


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("SELECT CAST(:value AS bigint)", 2**63),
        ("SELECT CAST(:value AS bigint)", "text"),
        ("SELECT CAST(:value AS text)", "a\0b"),
        ("SELECT 1 / CAST(:value AS int)", 0),
        ("SELECT no_such_column, CAST(:value AS int)", 0),
    ],
)
async def test_a_fault_of_ours_does_not_look_like_a_database_that_is_away(
    engine: AsyncEngine, statement: str, value: object
) -> None:
    """Who waits for the database to come back would wait for ever."""
    with pytest.raises(DBAPIError):
        async with transaction(engine) as connection:
            await connection.execute(text(statement), {"value": value})


async def test_replicas_that_start_together_migrate_once(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as fresh:
        await asyncio.gather(*(migrate(fresh, MIGRATIONS) for _ in range(4)))
        async with open_engine(fresh, "tests") as engine, transaction(engine) as connection:
            versions = await connection.scalars(text("SELECT version_num FROM alembic_version"))
            assert len(list(versions)) == 1


async def test_migrating_waits_for_a_database_that_is_not_there_yet(
    infrastructure: Infrastructure,
) -> None:
    async with infrastructure.database() as fresh, proxied(fresh) as (proxy, through):
        await proxy.cut()
        migrating = asyncio.create_task(migrate(through, MIGRATIONS))
        done, _ = await asyncio.wait({migrating}, timeout=0.5)
        assert not done
        await proxy.resume()
        await migrating
