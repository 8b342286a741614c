"""Getting one order, waiting for it, and listing orders."""

import asyncio
import uuid

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import update

from order_service.tables import orders as orders_table
from proto import inventory_pb2
from proto import order_pb2 as pb
from service_kit.errors import Code
from tests.service.orders.calls import (
    CANCELLED,
    CONFIRMED,
    PENDING,
    REJECTED,
    UNKNOWN,
    cancel,
    get,
    list_page,
    order_request,
    place,
    place_all,
    refuses,
    register,
    rejection,
    settle,
    settlement,
    waiting_for,
)
from tests.support.services import Orders, Users, ask


async def test_an_order_is_returned_only_to_its_owner_unless_any_user_is_allowed(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    assert (await get(orders, order.id, customer)).id == order.id
    assert (await get(orders, order.id, 0)).id == order.id
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await get(orders, order.id, await register(users))


@pytest.mark.parametrize("order_id", [str(uuid.UUID(int=0)), "", "7", "a\0b"])
async def test_an_order_that_does_not_exist_is_not_found(orders: Orders, order_id: str) -> None:
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await get(orders, order_id)
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await cancel(orders, order_id)


async def test_a_call_that_waits_for_an_order_returns_as_soon_as_it_is_settled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    waiting = await waiting_for(orders, order.id)
    also = await waiting_for(orders, order.id)
    await settle(orders, settlement(order.id))
    async with asyncio.timeout(5):
        assert (await waiting).status == (await also).status == CONFIRMED


async def test_a_call_that_waits_for_an_order_returns_when_it_is_cancelled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    waiting = await waiting_for(orders, order.id)
    await cancel(orders, order.id)
    async with asyncio.timeout(5):
        assert (await waiting).status == CANCELLED


async def test_a_call_that_waits_sees_what_another_order_service_settled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    waiting = await waiting_for(orders, order.id)
    statement = update(orders_table).where(orders_table.c.id == order.id)
    async with orders.engine.begin() as connection:
        await connection.execute(statement.values(status="REJECTED"))
    async with asyncio.timeout(5):
        assert (await waiting).status == REJECTED


async def test_a_call_that_has_waited_long_enough_returns_the_order_as_it_is(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    for seconds in (0.1, 0.0, -5.0):
        assert (await get(orders, order.id, wait=seconds)).status == PENDING


async def test_any_length_of_waiting_is_accepted(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    await settle(orders, settlement(order.id))
    for seconds in (2**62, 10**15, -(2**62)):
        request = pb.GetOrderRequest(order_id=order.id, wait=Duration(seconds=seconds))
        assert (await ask(orders.stub.GetOrder, request)).status == CONFIRMED


async def test_no_call_waits_for_the_order_of_another_user(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    order, other = await place(orders, customer, (tea.id, 1)), await register(users)
    async with asyncio.timeout(5), refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await get(orders, order.id, other, wait=30)


async def test_pages_have_every_order_once_newest_first(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    placed = [(await place(orders, customer, (tea.id, 1))).id for _ in range(23)]
    page = await list_page(orders, customer, 4)
    found = list(page.orders)
    while page.next_page_token:
        assert len(page.orders) == 4
        # What is placed meanwhile stands before the first page and shifts nothing.
        await place(orders, customer, (tea.id, 1))
        page = await list_page(orders, customer, 4, page.next_page_token)
        found += page.orders
    assert [order.id for order in found] == placed[::-1]


async def test_listed_orders_have_everything_except_their_history(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    page = await list_page(orders, customer)
    assert list(page.orders) == [order]
    assert page.next_page_token == ""


async def test_a_page_has_20_orders_by_default_and_100_at_most(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    await place_all(orders, *[order_request(customer, (tea.id, 1))] * 103)
    assert len((await list_page(orders, customer)).orders) == 20
    page = await list_page(orders, customer, 1000)
    assert len(page.orders) == 100
    assert len((await list_page(orders, customer, 100, page.next_page_token)).orders) == 3


async def test_orders_are_listed_by_status_and_by_user(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    pending, confirmed, rejected, cancelled = [
        (await place(orders, customer, (tea.id, 1))).id for _ in range(4)
    ]
    await settle(orders, settlement(confirmed), rejection(rejected))
    await cancel(orders, cancelled)
    other = await register(users)
    others = (await place(orders, other, (tea.id, 1))).id
    for status, expected in (
        (PENDING, pending),
        (CONFIRMED, confirmed),
        (REJECTED, rejected),
        (CANCELLED, cancelled),
    ):
        page = await list_page(orders, customer, status=status)
        assert [(order.id, order.status) for order in page.orders] == [(expected, status)]
        everyone = await list_page(orders, status=status, page_size=100)
        assert {order.status for order in everyone.orders} == {status}
        assert expected in {order.id for order in everyone.orders}
    assert len((await list_page(orders, customer)).orders) == 4
    newest = [order.id for order in (await list_page(orders)).orders][:2]
    assert newest == [others, cancelled]
    assert not (await list_page(orders, UNKNOWN)).orders


@pytest.mark.parametrize("status", [5, 99, -1])
async def test_a_status_that_does_not_exist_is_refused(orders: Orders, status: int) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "INVALID_STATUS"):
        await list_page(orders, status=status)


@pytest.mark.parametrize("token", ["!", "bm9uZQ", "MTI", "AAAA"])
async def test_an_invalid_page_token_is_refused(orders: Orders, token: str) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await list_page(orders, page_token=token)


async def test_a_negative_page_size_is_refused(orders: Orders) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await list_page(orders, page_size=-1)
