"""Every test starts with empty queues."""

from collections.abc import AsyncIterator

import pytest_asyncio

from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE, INVENTORY_QUEUE
from tests.integration.environment import Environment, purge


@pytest_asyncio.fixture(autouse=True)
async def empty_queues(environment: Environment) -> None:
    await purge(environment.broker, INVENTORY_QUEUE, DEAD_LETTER_QUEUE, AUDIT_QUEUE)


@pytest_asyncio.fixture
async def consumer(environment: Environment) -> AsyncIterator[str]:
    """A consumer that runs throughout the test."""
    async with environment.consuming() as address:
        yield address
