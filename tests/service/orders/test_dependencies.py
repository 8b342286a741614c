"""An order service whose dependencies are unavailable, slow or reconnecting."""

from collections.abc import AsyncIterator
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)

import pytest

from proto import inventory_pb2
from service_kit.errors import DeadlineExceeded, Unavailable
from service_kit.grpc.client import call
from tests.service.orders.calls import (
    CANCELLED,
    CONFIRMED,
    HANGS,
    PENDING,
    UNAVAILABLE,
    cancel,
    get,
    list_page,
    order_request,
    place,
    place_all,
    refuses,
    settle,
    settlement,
    stored_counts,
)
from tests.support.infrastructure import Infrastructure
from tests.support.services import Inventory, Orders, Users, orders_running
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually


@asynccontextmanager
async def behind_proxies(
    infrastructure: Infrastructure, users: Users, inventory: Inventory
) -> AsyncIterator[tuple[Orders, dict[str, TcpProxy]]]:
    """An order service of its own whose dependencies can be made to fail."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = await enter(infrastructure.database())
        users_proxy, users_address = await enter(proxied(users.address))
        inventory_proxy, inventory_address = await enter(proxied(inventory.address))
        orders = await enter(
            orders_running(url, users_address=users_address, inventory_address=inventory_address)
        )
        yield orders, {"users": users_proxy, "inventory": inventory_proxy}


async def is_placed(orders: Orders, user_id: int, *items: tuple[int, int], key: str) -> bool:
    """Whether the order could be placed this time."""
    with suppress(Unavailable):
        await place(orders, user_id, *items, key=key)
        return True
    return False


@pytest.mark.parametrize("dependency", ["users", "inventory"])
async def test_while_a_dependency_is_unavailable_or_hangs_nothing_is_stored(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    *,
    customer: int,
    tea: inventory_pb2.Product,
    dependency: str,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        proxy = proxies[dependency]
        proxy.pause()  # before there is a connection
        async with refuses(orders, *UNAVAILABLE):
            await place(orders, customer, (tea.id, 1), key="a")
        await proxy.cut()
        async with refuses(orders, *UNAVAILABLE):
            await place(orders, customer, (tea.id, 1), key="a")
        await proxy.resume()
        await eventually(lambda: is_placed(orders, customer, (tea.id, 1), key="a"), within=5)
        assert await stored_counts(orders, customer) == (1, 1)
        proxy.pause()  # on a connection that stood
        async with refuses(orders, *HANGS):
            await place(orders, customer, (tea.id, 1))
        async with refuses(orders, *HANGS):
            await place_all(orders, *[order_request(customer, (tea.id, 1))] * 2)


async def test_a_call_over_a_broken_connection_to_a_dependency_is_retried(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    customer: int,
    tea: inventory_pb2.Product,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        await place(orders, customer, (tea.id, 1))
        for proxy in proxies.values():
            proxy.drop()
            assert (await place(orders, customer, (tea.id, 1))).status == PENDING


async def test_a_short_deadline_ends_the_wait_for_a_dependency_that_hangs(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    customer: int,
    tea: inventory_pb2.Product,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        proxies["users"].pause()
        with pytest.raises(DeadlineExceeded):
            await call(orders.stub.CreateOrder, order_request(customer, (tea.id, 1)), timeout=0.3)
        await proxies["users"].resume()
        await eventually(lambda: is_placed(orders, customer, (tea.id, 1), key="a"), within=5)
        assert await stored_counts(orders, customer) == (1, 1)


async def test_orders_can_be_read_and_cancelled_while_all_dependencies_are_unavailable(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    customer: int,
    tea: inventory_pb2.Product,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        order = await place(orders, customer, (tea.id, 1))
        for proxy in proxies.values():
            await proxy.cut()
        assert (await get(orders, order.id, customer)).status == PENDING
        assert len((await list_page(orders, customer)).orders) == 1
        assert await settle(orders, settlement(order.id)) == [CONFIRMED]
        assert (await cancel(orders, order.id)).status == CANCELLED
