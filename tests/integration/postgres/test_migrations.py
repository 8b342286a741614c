"""Migrations with several replicas, and with a database that is not up yet."""

import asyncio

from sqlalchemy import text

from service_kit.postgres.engine import open_engine, transaction
from service_kit.postgres.migrations import migrate
from tests.support.infrastructure import Infrastructure
from tests.support.tcp_proxy import proxied


async def test_replicas_that_start_together_migrate_once(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as fresh:
        await asyncio.gather(*(migrate(fresh, "inventory_service") for _ in range(4)))
        async with open_engine(fresh, "tests") as engine, transaction(engine) as connection:
            versions = await connection.scalars(text("SELECT version_num FROM alembic_version"))
            assert len(list(versions)) == 1


async def test_migrating_waits_for_a_database_that_is_not_up_yet(
    infrastructure: Infrastructure,
) -> None:
    async with infrastructure.database() as fresh, proxied(fresh) as (proxy, through):
        await proxy.cut()
        migrating = asyncio.create_task(migrate(through, "inventory_service"))
        done, _ = await asyncio.wait({migrating}, timeout=0.5)
        assert not done
        await proxy.resume()
        await migrating
