"""Fixtures of the gateway's tests."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.unit.gateway.backend import Shop, running_shop


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as running:
        yield running
