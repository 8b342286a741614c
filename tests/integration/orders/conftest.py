"""The order service's database, a producer, and what retries were made."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate
from tests.integration.environment import publish_probe
from tests.support.infrastructure import Broker
from tests.support.services import producer_running


@pytest_asyncio.fixture(scope="module")
async def migrated(order_database_url: str) -> str:
    """The URL of an order database at the newest revision."""
    await migrate(order_database_url, "order_service")
    return order_database_url


@pytest_asyncio.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    """The order database without orders and events."""
    async with open_engine(migrated, "tests") as found:
        async with found.begin() as connection:
            await connection.execute(
                text("TRUNCATE orders, order_items, order_status_history, outbox")
            )
        yield found


@pytest_asyncio.fixture(scope="module")
async def producer(broker: Broker) -> AsyncIterator[str]:
    """A producer that can publish: its address."""
    async with producer_running(broker.url) as (address, stub):
        await publish_probe(stub)
        yield address


@pytest.fixture
def retries() -> Iterator[list[RetryDetails]]:
    """The failed attempts so far, of all tasks that retry."""
    found: list[RetryDetails] = []
    set_on_retry_hooks([found.append])  # type: ignore[list-item] # a hook may return nothing
    yield found
    set_on_retry_hooks(None)
