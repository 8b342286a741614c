"""SQL on a service's database, without the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

Rows = list[dict[str, Any]]

SECONDS = 20.0

# Without `stock_balances`, which inventory's consistency monitor writes at any time.
_CHECKSUMS = r"""
SELECT format(
    'SELECT %L AS name, count(*) AS rows, md5(string_agg(t::text, E''\n'' ORDER BY t::text))'
    ' AS checksum FROM %I AS t', tablename, tablename) AS statement
FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'stock_balances'
"""


@dataclass(frozen=True)
class Database:
    """A database by its URL. Each statement has a connection of its own: tests kill servers."""

    url: str

    async def connect(self) -> asyncpg.Connection:
        """A connection, which the caller closes."""
        return await asyncpg.connect(self.url.replace("+asyncpg", "", 1), timeout=SECONDS)

    async def rows(self, statement: str, *parameters: object) -> Rows:
        """The rows that a statement returns."""
        connection = await self.connect()
        try:
            found = await connection.fetch(statement, *parameters, timeout=SECONDS)
        finally:
            await connection.close()
        return [dict(row) for row in found]

    async def value(self, statement: str, *parameters: object) -> Any:
        """The only column of the only row, or None without a row."""
        rows = await self.rows(statement, *parameters)
        return next(iter(rows[0].values())) if rows else None

    async def contents(self) -> dict[str, tuple[int, str]]:
        """For each table of business data its number of rows and a checksum of all rows."""
        tables = await self.rows(_CHECKSUMS)
        found = await self.rows(" UNION ALL ".join(table["statement"] for table in tables))
        return {row["name"]: (row["rows"], row["checksum"]) for row in found}

    @asynccontextmanager
    async def locked(self, table: str) -> AsyncIterator[None]:
        """Inside the block no other session reads or writes the table."""
        connection = await self.connect()
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()
