"""A service's database, asked directly. A connection a question: servers are killed here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

Rows = list[dict[str, Any]]
SECONDS = 20.0


@dataclass(frozen=True)
class Store:
    """A database by the URL that its service has."""

    url: str

    async def connect(self) -> asyncpg.Connection:
        """A connection of one's own."""
        return await asyncpg.connect(self.url.replace("+asyncpg", "", 1), timeout=SECONDS)

    async def rows(self, statement: str, *parameters: object) -> Rows:
        """What a statement returns."""
        connection = await self.connect()
        try:
            found = await connection.fetch(statement, *parameters, timeout=SECONDS)
        finally:
            await connection.close()
        return [dict(row) for row in found]

    @asynccontextmanager
    async def locked(self, table: str) -> AsyncIterator[None]:
        """Inside the block nobody else reads or writes the table."""
        connection = await self.connect()
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()

    async def value(self, statement: str, *parameters: object) -> Any:
        """The only column of the only row, or None without a row."""
        rows = await self.rows(statement, *parameters)
        return next(iter(rows[0].values())) if rows else None
