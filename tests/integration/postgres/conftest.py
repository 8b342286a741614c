"""A database with two accounts, and engines that reach it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.postgres import engine as postgres_engine
from service_kit.postgres.engine import open_engine
from tests.support.tcp_proxy import TcpProxy, proxied


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
async def engine_behind_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[TcpProxy, AsyncEngine]]:
    """An engine with short deadlines that reaches the database through a proxy."""
    monkeypatch.setattr(postgres_engine, "CONNECT_SECONDS", 0.4)
    monkeypatch.setattr(postgres_engine, "STATEMENT_SECONDS", 0.4)
    async with proxied(url) as (proxy, through), open_engine(through, "tests", 2) as found:
        yield proxy, found
