"""A customer, a product, and a shop without orders."""

from collections.abc import AsyncIterator

import pytest_asyncio

from order_service.clients import open_inventory_channel
from order_service.consistency.clients import ReservationClient
from proto import inventory_pb2
from tests.service.orders.calls import register, stocked
from tests.service.orders.shop import Shop, execute
from tests.support.services import Inventory, Orders, Users


@pytest_asyncio.fixture
async def customer(users: Users) -> int:
    """The id of a new customer."""
    return await register(users)


@pytest_asyncio.fixture
async def tea(inventory: Inventory) -> inventory_pb2.Product:
    """A product at 2.50 of which there is plenty."""
    return await stocked(inventory)


@pytest_asyncio.fixture
async def shop(orders: Orders, inventory: Inventory, users: Users) -> Shop:
    """A shop without orders."""
    await execute(orders.engine, "TRUNCATE orders, order_items, order_status_history, outbox")
    await execute(inventory.engine, "TRUNCATE products, stock_movements, reservations")
    return Shop(orders, inventory, await register(users), (await stocked(inventory)).id)


@pytest_asyncio.fixture
async def reservations(inventory: Inventory) -> AsyncIterator[ReservationClient]:
    """What inventory decided."""
    async with open_inventory_channel(inventory.address) as channel:
        yield ReservationClient(channel)
