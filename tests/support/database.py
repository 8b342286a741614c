"""The contents and schema of a service's database, read without the service."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.errors import Code, ServiceError
from tests.support.infrastructure import CHECKOUT

Contents = dict[str, list[tuple[Any, ...]]]

_SCHEMA = text("""
SELECT 'column', table_name, column_name || ' ' || data_type || ' ' || is_nullable || ' '
    || coalesce(column_default, '') || ' ' || coalesce(identity_generation, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'options', relname, coalesce(array_to_string(reloptions, ','), '')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
""")


async def contents(engine: AsyncEngine, metadata: MetaData) -> Contents:
    """Every row of every table, by table."""
    async with engine.connect() as connection:
        return {
            table.name: sorted(
                (tuple(row) for row in await connection.execute(select(table))), key=repr
            )
            for table in metadata.sorted_tables
        }


@asynccontextmanager
async def refused(
    engine: AsyncEngine, metadata: MetaData, code: Code, reason: str
) -> AsyncIterator[pytest.ExceptionInfo[ServiceError]]:
    """The block must raise an error with this code and reason, and change no row."""
    before = await contents(engine, metadata)
    with pytest.raises(ServiceError) as refusal:
        yield refusal
    assert (refusal.value.code, refusal.value.reason) == (code, reason)
    assert await contents(engine, metadata) == before


async def differences(engine: AsyncEngine, metadata: MetaData) -> list[Any]:
    """The differences that Alembic finds between the database and the tables."""
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: list(
                compare_metadata(
                    MigrationContext.configure(
                        sync, opts={"compare_type": True, "compare_server_default": True}
                    ),
                    metadata,
                )
            )
        )


async def schema(engine: AsyncEngine) -> set[tuple[str, str, str]]:
    """Columns, constraints, indexes and storage options, without Alembic's own table."""
    async with engine.connect() as connection:
        rows = await connection.execute(_SCHEMA)
        return {(kind, table, what) for kind, table, what in rows if table != "alembic_version"}


async def migrated_by_replicas(service: str, url: str, replicas: int = 3) -> list[int]:
    """Run the migrations of a service in several processes at once; their exit codes."""
    variable = f"{service.split('_', maxsplit=1)[0].upper()}_DATABASE_URL"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", service, "migrate"),
            cwd=CHECKOUT,
            env={**os.environ, variable: url},
            stdout=subprocess.DEVNULL,
        )
        for _ in range(replicas)
    ]
    return [await process.wait() for process in processes]
