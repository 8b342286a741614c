"""A server that refuses connections, hangs, or is closed by its operator is Unavailable."""

import asyncio
import time
import uuid

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.errors import Unavailable
from service_kit.postgres.engine import autocommit, open_engine
from tests.integration.postgres.statements import (
    can_query,
    execute,
    recovers,
    server_sleeps,
    sleep_on_server,
)
from tests.support.infrastructure import Infrastructure
from tests.support.ports import free_port
from tests.support.tcp_proxy import TcpProxy


@pytest.mark.parametrize("place", ["port", "socket"])
async def test_a_server_that_refuses_connections_is_reported_as_unavailable(
    url: str, place: str
) -> None:
    nowhere = {
        "port": make_url(url).set(host="127.0.0.1", port=free_port(), query={}),
        "socket": make_url(url).set(query={"host": "/tmp/no-such-folder"}),
    }[place]
    async with open_engine(nowhere.render_as_string(hide_password=False), "tests") as engine:
        with pytest.raises(Unavailable):
            await can_query(engine)


async def test_a_server_without_free_slots_is_reported_as_unavailable(
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
            with pytest.raises(Unavailable) as error:
                await can_query(engine)
        async with autocommit(admin) as connection:
            await connection.execute(text(f"DROP ROLE {name}"))
    assert error.value.metadata == {"state": "53300"}


async def test_a_database_closed_for_maintenance_is_reported_as_unavailable(
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
            await can_query(engine)
        async with autocommit(admin) as connection:
            await connection.execute(text(f"{allow} true"))
        assert await can_query(engine)


async def test_a_server_that_became_a_read_only_replica_is_reported_as_unavailable(
    engine: AsyncEngine,
) -> None:
    with pytest.raises(Unavailable):
        await execute(engine, "SET TRANSACTION READ ONLY", "UPDATE account SET amount = 0")


async def test_a_changed_password_is_reported_as_unavailable(
    infrastructure: Infrastructure, url: str
) -> None:
    name = f"rotated_{uuid.uuid4().hex}"
    async with open_engine(infrastructure.admin_url, "tests") as admin:
        await execute(admin, f"CREATE ROLE {name} LOGIN PASSWORD 'after'")
        before = make_url(url).set(username=name, password="before")
        async with open_engine(before.render_as_string(hide_password=False), "tests") as engine:
            with pytest.raises(Unavailable) as error:
                await can_query(engine)
        await execute(admin, f"DROP ROLE {name}")
    assert error.value.metadata == {"state": "28P01"}


async def test_a_database_renamed_for_a_restore_is_reported_as_unavailable_until_it_is_restored(
    infrastructure: Infrastructure,
) -> None:
    async with (
        infrastructure.database() as url,
        open_engine(infrastructure.admin_url, "tests") as admin,
        open_engine(url, "tests") as engine,
    ):
        name = make_url(url).database
        await execute(admin, f"ALTER DATABASE {name} RENAME TO {name}_aside")
        with pytest.raises(Unavailable) as error:
            await can_query(engine)
        await execute(admin, f"ALTER DATABASE {name}_aside RENAME TO {name}")
        assert await can_query(engine)
    assert error.value.metadata == {"state": "3D000"}


async def test_a_reset_connection_is_reported_as_unavailable_and_replaced(
    engine_behind_proxy: tuple[TcpProxy, AsyncEngine], engine: AsyncEngine
) -> None:
    proxy, through = engine_behind_proxy
    async with through.connect() as connection:
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.commit()
    running = asyncio.create_task(sleep_on_server(through))
    await server_sleeps(engine)
    proxy.drop()
    with pytest.raises(Unavailable):
        await running
    assert await can_query(through)


async def test_a_stopped_server_is_reported_as_unavailable_and_used_again_after_its_return(
    engine_behind_proxy: tuple[TcpProxy, AsyncEngine],
) -> None:
    proxy, through = engine_behind_proxy
    assert await can_query(through)
    await proxy.cut()
    for _ in range(5):  # more than the pool has connections: none leaks
        with pytest.raises(Unavailable):
            await can_query(through)
    await proxy.resume()
    await recovers(through)


async def test_a_hanging_server_is_reported_as_unavailable_in_time_and_used_again_after_its_return(
    engine_behind_proxy: tuple[TcpProxy, AsyncEngine],
) -> None:
    proxy, through = engine_behind_proxy
    assert await can_query(through)
    proxy.pause()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await can_query(through)
    assert time.monotonic() - started < 9
    await proxy.resume()
    await recovers(through)
