"""Statements that the tests of the engine run."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service_kit.errors import Unavailable
from service_kit.postgres.engine import transaction
from tests.support.waiting import eventually


async def backend_pid(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)


async def can_query(engine: AsyncEngine) -> bool:
    async with transaction(engine) as connection:
        return bool(await connection.scalar(text("SELECT true")))


async def recovers(engine: AsyncEngine) -> None:
    async def probe() -> bool:
        try:
            return await can_query(engine)
        except Unavailable:
            return False

    await eventually(probe)


async def server_sleeps(engine: AsyncEngine) -> None:
    """Return once a session runs pg_sleep."""
    asleep = text("""
        SELECT pid FROM pg_stat_activity
        WHERE query LIKE 'SELECT pg_sleep%' AND wait_event = 'PgSleep'
          AND datname = current_database()
    """)

    async def probe() -> object:
        async with engine.connect() as connection:
            return await connection.scalar(asleep)

    await eventually(probe)


async def terminate_sessions(engine: AsyncEngine, *pids: int) -> None:
    async with engine.connect() as connection:
        for each in pids:
            # Returns once the session has ended.
            ended = text("SELECT pg_terminate_backend(:pid, 5000)")
            assert await connection.scalar(ended, {"pid": each})


async def execute(engine: AsyncEngine, *statements: str) -> None:
    """Run statements in one transaction."""
    async with transaction(engine) as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def sleep_on_server(engine: AsyncEngine) -> None:
    await execute(engine, "SELECT pg_sleep(30)")
