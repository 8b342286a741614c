"""Services inside the test process, on real databases and over real gRPC."""

from collections.abc import AsyncIterator

import pytest_asyncio
import structlog

from tests.support.services import (
    Inventory,
    Orders,
    Users,
    inventory_running,
    orders_running,
    users_running,
)

# Rich tracebacks of expected failures would take seconds each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest_asyncio.fixture(scope="module")
async def inventory(inventory_database_url: str) -> AsyncIterator[Inventory]:
    """The inventory service on a fresh database."""
    async with inventory_running(inventory_database_url) as service:
        yield service


@pytest_asyncio.fixture(scope="module")
async def users(user_database_url: str) -> AsyncIterator[Users]:
    """The user service on a fresh database."""
    async with users_running(user_database_url) as service:
        yield service


@pytest_asyncio.fixture(scope="module")
async def orders(
    order_database_url: str, users: Users, inventory: Inventory
) -> AsyncIterator[Orders]:
    """The order service on a fresh database, with real dependencies.

    There is no producer: the outbox only fills, and nothing is republished.
    """
    async with orders_running(
        order_database_url,
        users_address=users.address,
        inventory_address=inventory.address,
        order_republish_seconds=3600,
    ) as service:
        yield service
