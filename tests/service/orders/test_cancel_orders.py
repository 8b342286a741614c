"""Cancelling orders."""

import asyncio
import json

import pytest

from order_service.tables import metadata
from proto import inventory_pb2
from proto import order_pb2 as pb
from service_kit.context import CallContext, bound
from service_kit.errors import Code
from tests.service.orders.calls import (
    CANCELLED,
    CONFIRMED,
    PENDING,
    TRACE,
    cancel,
    events_of,
    get,
    is_unanswered,
    order_request,
    place,
    place_all,
    refuses,
    register,
    rejection,
    settle,
    settlement,
    types_of,
)
from tests.support.database import contents
from tests.support.services import Orders, Users


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_pending_or_confirmed_order_can_be_cancelled(
    orders: Orders, customer: int, tea: inventory_pb2.Product, *, confirmed: bool
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    if confirmed:
        await settle(orders, settlement(order.id))
    with bound(CallContext("regret", TRACE)):
        cancelled = await cancel(orders, order.id, customer)
    assert cancelled.status == CANCELLED
    assert list(cancelled.items) == list(order.items)
    assert cancelled.update_time.ToNanoseconds() > order.update_time.ToNanoseconds()
    assert await get(orders, order.id) == cancelled
    path = [PENDING, CONFIRMED, CANCELLED] if confirmed else [PENDING, CANCELLED]
    assert [change.status for change in cancelled.history] == path
    event = (await events_of(orders, order.id))[-1]
    assert (event.type, event.request_id, event.traceparent) == ("order.cancelled", "regret", TRACE)
    event_body = json.loads(event.body)["data"]
    assert (event_body["status"], event_body["items"][0]["quantity"]) == ("CANCELLED", 2)
    assert await is_unanswered(orders, order.id)


async def test_cancelling_twice_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    first = await cancel(orders, order.id)
    before = await contents(orders.engine, metadata)
    assert await cancel(orders, order.id) == first
    assert await contents(orders.engine, metadata) == before


async def test_a_rejected_order_cannot_be_cancelled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    await settle(orders, rejection(order.id))
    async with refuses(orders, Code.FAILED_PRECONDITION, "NOT_CANCELLABLE") as refusal:
        await cancel(orders, order.id)
    assert refusal.value.metadata == {"status": "REJECTED"}


async def test_the_order_of_another_user_cannot_be_cancelled(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    order, other = await place(orders, customer, (tea.id, 2)), await register(users)
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await cancel(orders, order.id, other)


async def test_concurrent_cancellations_cancel_once(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    results = await asyncio.gather(*(cancel(orders, order.id) for _ in range(30)))
    assert all(result == results[0] for result in results)
    assert await types_of(orders, order.id) == ["order.created", "order.cancelled"]


async def test_a_cancellation_that_races_with_the_settlement_always_wins(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await place_all(orders, *[order_request(customer, (tea.id, 1))] * 30)
    placed = [order.id for order in results if isinstance(order, pb.Order)]
    race = [cancel(orders, order) for order in placed]
    await asyncio.gather(*race, *(settle(orders, settlement(order)) for order in placed))
    for order_id in placed:
        order = await get(orders, order_id)
        path = [change.status for change in order.history]
        assert path in ([PENDING, CANCELLED], [PENDING, CONFIRMED, CANCELLED])
        assert order.status == CANCELLED
        types = ["order.created", "order.confirmed", "order.cancelled"]
        assert sorted(await types_of(orders, order_id)) == sorted(
            types if CONFIRMED in path else types[::2]
        )
