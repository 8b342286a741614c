"""Services inside the test's process, on real databases and over real gRPC."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.services import Service, inventory_running, orders_running, users_running

if TYPE_CHECKING:
    from proto.inventory_pb2_grpc import InventoryServiceAsyncStub
    from proto.order_pb2_grpc import OrderServiceAsyncStub
    from proto.user_pb2_grpc import UserServiceAsyncStub


@pytest_asyncio.fixture(scope="module")
async def inventory(
    inventory_database_url: str,
) -> AsyncIterator[Service["InventoryServiceAsyncStub"]]:
    """The inventory service on a fresh database."""
    async with inventory_running(inventory_database_url) as service:
        yield service


@pytest_asyncio.fixture(scope="module")
async def users(user_database_url: str) -> AsyncIterator[Service["UserServiceAsyncStub"]]:
    """The user service on a fresh database."""
    async with users_running(user_database_url) as service:
        yield service


@pytest_asyncio.fixture(scope="module")
async def orders(
    order_database_url: str,
    users: Service["UserServiceAsyncStub"],
    inventory: Service["InventoryServiceAsyncStub"],
) -> AsyncIterator[Service["OrderServiceAsyncStub"]]:
    """The order service on a fresh database, beside real neighbours; its outbox only fills."""
    async with orders_running(
        order_database_url, users_address=users.address, inventory_address=inventory.address
    ) as service:
        yield service
