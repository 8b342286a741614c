"""Idempotency keys: a request that is repeated makes one order."""

import asyncio

from order_service.tables import metadata
from proto import inventory_pb2
from proto import order_pb2 as pb
from service_kit.errors import Code
from tests.service.orders.calls import (
    CONFIRMED,
    PENDING,
    UNKNOWN,
    order_request,
    place,
    refuses,
    register,
    settle,
    settlement,
    stocked,
    stored_counts,
)
from tests.support.database import contents
from tests.support.services import Inventory, Orders, Users, ask


async def test_the_same_request_with_the_same_key_gives_the_same_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    first = await place(orders, customer, (tea.id, 2), (tea.id, 1), key="a")
    before = await contents(orders.engine, metadata)
    assert await place(orders, customer, (tea.id, 2), (tea.id, 1), key="a") == first
    assert await place(orders, customer, (tea.id, 3), key="a") == first
    assert await contents(orders.engine, metadata) == before


async def test_a_repeated_request_returns_the_current_state_of_its_order(
    orders: Orders, inventory: Inventory, customer: int
) -> None:
    scarce = await stocked(inventory, 1)
    order = await place(orders, customer, (scarce.id, 1), key="a")
    await settle(orders, settlement(order.id))
    adjustment = inventory_pb2.AdjustStockRequest(product_id=scarce.id, delta=-1, reason="sold")
    await ask(inventory.stub.AdjustStock, adjustment)
    again = await place(orders, customer, (scarce.id, 1), key="a")
    assert (again.id, again.status) == (order.id, CONFIRMED)


async def test_the_same_key_with_another_request_is_refused(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    await place(orders, customer, (tea.id, 1), key="a")
    async with refuses(orders, Code.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED"):
        await place(orders, customer, (tea.id, 2), key="a")
    priced = order_request(customer, (tea.id, 1), key="a")
    priced.items[0].unit_price_cents = 250
    async with refuses(orders, Code.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED"):
        await ask(orders.stub.CreateOrder, priced)


async def test_a_key_of_a_refused_request_can_be_used_again(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT"):
        await place(orders, customer, (UNKNOWN, 1), key="a")
    assert (await place(orders, customer, (tea.id, 1), key="a")).status == PENDING


async def test_the_same_key_of_two_users_makes_two_orders(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    other = await register(users)
    one = await place(orders, customer, (tea.id, 1), key="a")
    assert (await place(orders, other, (tea.id, 1), key="a")).id != one.id


async def test_without_a_key_every_request_is_a_new_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    one = await place(orders, customer, (tea.id, 1))
    assert (await place(orders, customer, (tea.id, 1))).id != one.id


async def test_concurrent_requests_with_one_key_make_one_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await asyncio.gather(
        *(place(orders, customer, (tea.id, 1), key="a") for _ in range(60))
    )
    assert all(result == results[0] for result in results)
    assert await stored_counts(orders, customer) == (1, 1)


async def test_of_different_concurrent_requests_with_one_key_one_wins(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await asyncio.gather(
        *(place(orders, customer, (tea.id, 1 + number % 2), key="a") for number in range(40)),
        return_exceptions=True,
    )
    winners = [result for result in results if isinstance(result, pb.Order)]
    losers = [getattr(result, "reason", result) for result in results if result not in winners]
    assert len({winner.id for winner in winners}) == 1
    assert losers == ["IDEMPOTENCY_KEY_REUSED"] * 20
    assert await stored_counts(orders, customer) == (1, 1)
