"""Settling orders with what inventory decided."""

import asyncio
import json
import random
import uuid
from collections import Counter

import pytest
from sqlalchemy import text

from order_service.tables import metadata
from proto import inventory_pb2
from proto import order_pb2 as pb
from service_kit.errors import Code
from tests.service.orders.calls import (
    CANCELLED,
    CONFIRMED,
    PENDING,
    REJECTED,
    TRACE,
    cancel,
    events_of,
    get,
    is_unanswered,
    order_request,
    place,
    place_all,
    refuses,
    rejection,
    release,
    settle,
    settlement,
    stored_counts,
    types_of,
)
from tests.service.orders.shop import Shop
from tests.support.database import contents
from tests.support.services import Orders, ask


async def test_a_confirmed_order_has_status_history_and_event(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    assert await settle(orders, settlement(order.id)) == [CONFIRMED]
    found = await get(orders, order.id)
    assert (found.status, list(found.shortages)) == (CONFIRMED, [])
    assert [change.status for change in found.history] == [PENDING, CONFIRMED]
    assert found.update_time == found.history[1].time
    event = (await events_of(orders, order.id))[-1]
    assert (event.type, event.request_id, event.traceparent) == (
        "order.confirmed",
        "settling",
        TRACE,
    )
    assert json.loads(event.body)["data"]["status"] == "CONFIRMED"
    assert not await is_unanswered(orders, order.id)


async def test_a_rejected_order_has_its_shortages(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 3))
    assert await settle(orders, rejection(order.id, tea.id)) == [REJECTED]
    found = await get(orders, order.id)
    shortage = pb.Shortage(product_id=tea.id, requested=3, available=2)
    assert (found.status, list(found.shortages)) == (REJECTED, [shortage])
    event = (await events_of(orders, order.id))[-1]
    assert event.type == "order.rejected"
    assert json.loads(event.body)["data"]["shortages"] == [
        {"product_id": tea.id, "requested": 3, "available": 2}
    ]
    assert not await is_unanswered(orders, order.id)


async def test_settling_again_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    confirmed = (await place(orders, customer, (tea.id, 1))).id
    rejected = (await place(orders, customer, (tea.id, 1))).id
    settlements = [settlement(confirmed), rejection(rejected)]
    assert await settle(orders, *settlements) == [CONFIRMED, REJECTED]
    before = await contents(orders.engine, metadata)
    assert await settle(orders, *settlements) == [CONFIRMED, REJECTED]
    assert await settle(orders, rejection(confirmed), settlement(rejected)) == [CONFIRMED, REJECTED]
    assert await settle(orders, release(confirmed), release(rejected)) == [CONFIRMED, REJECTED]
    assert await contents(orders.engine, metadata) == before


async def test_of_settlements_of_one_order_in_one_batch_the_first_counts(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    batch = [settlement(order), settlement(order), rejection(order), release(order)]
    assert await settle(orders, *batch) == [CONFIRMED] * 4
    assert await types_of(orders, order) == ["order.created", "order.confirmed"]
    assert not (await get(orders, order)).shortages


async def test_the_settlement_of_an_unknown_order_is_skipped_and_reported(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order, unknown = (await place(orders, customer, (tea.id, 1))).id, str(uuid.uuid4())
    statuses = await settle(orders, settlement(unknown), settlement(order), release(unknown))
    assert statuses == [pb.ORDER_STATUS_UNSPECIFIED, CONFIRMED, pb.ORDER_STATUS_UNSPECIFIED]
    assert await events_of(orders, unknown) == []


async def test_a_cancelled_order_stays_cancelled_whatever_inventory_decided(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    await cancel(orders, order)
    before = await contents(orders.engine, metadata)
    assert await settle(orders, settlement(order)) == [CANCELLED]
    assert await settle(orders, rejection(order)) == [CANCELLED]
    assert await contents(orders.engine, metadata) == before


async def test_a_cancelled_order_is_answered_once_its_stock_is_released(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    await cancel(orders, order)
    assert await is_unanswered(orders, order)
    assert await settle(orders, release(order)) == [CANCELLED]
    assert not await is_unanswered(orders, order)


async def test_releasing_an_order_that_is_not_cancelled_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    before = await contents(orders.engine, metadata)
    assert await settle(orders, release(order)) == [PENDING]
    assert await contents(orders.engine, metadata) == before


async def test_a_dry_run_returns_what_settling_would_and_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    confirmed, rejected, cancelled, fine = [
        (await place(orders, customer, (tea.id, 1))).id for _ in range(4)
    ]
    await cancel(orders, cancelled)
    settlements = [settlement(confirmed), rejection(rejected), release(cancelled), release(fine)]
    settlements.append(settlement(str(uuid.uuid4())))
    before = await contents(orders.engine, metadata)
    dry_run = pb.SettleOrdersRequest(settlements=settlements, validate_only=True)
    response = await ask(orders.stub.SettleOrders, dry_run)
    assert await contents(orders.engine, metadata) == before
    statuses = [result.status for result in response.results]
    assert statuses == [CONFIRMED, REJECTED, CANCELLED, PENDING, pb.ORDER_STATUS_UNSPECIFIED]
    assert statuses == await settle(orders, *settlements)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (pb.Settlement(order_id=str(uuid.uuid4())), "INVALID_OUTCOME"),
        (settlement(""), "INVALID_ORDER_ID"),
        (settlement("7"), "INVALID_ORDER_ID"),
    ],
)
async def test_a_batch_with_a_malformed_settlement_is_refused_as_a_whole(
    orders: Orders,
    customer: int,
    tea: inventory_pb2.Product,
    *,
    wrong: pb.Settlement,
    reason: str,
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    async with refuses(orders, Code.INVALID_ARGUMENT, reason):
        await settle(orders, settlement(order), wrong)


async def test_at_most_1000_orders_are_settled_in_one_call(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await place_all(orders, *[order_request(customer, (tea.id, 1))] * 1000)
    batch = [settlement(order.id) for order in results if isinstance(order, pb.Order)]
    async with refuses(orders, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await settle(orders, *batch, settlement(str(uuid.uuid4())))
    assert await settle(orders, *batch) == [CONFIRMED] * 1000


async def test_an_empty_batch_of_settlements_has_no_results(orders: Orders) -> None:
    assert await settle(orders) == []


async def test_the_same_settlements_in_concurrent_batches_never_deadlock(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await place_all(orders, *[order_request(customer, (tea.id, 1))] * 80)
    batch = [settlement(order.id) for order in results if isinstance(order, pb.Order)]
    batches = await asyncio.gather(
        *(settle(orders, *random.sample(batch, len(batch))) for _ in range(12))
    )
    assert Counter(status for statuses in batches for status in statuses) == {CONFIRMED: 12 * 80}
    assert await stored_counts(orders, customer) == (80, 160)


async def test_a_dry_run_can_be_repeated_and_settles_nothing(shop: Shop) -> None:
    order_id = await shop.placed()
    outcome = pb.SETTLEMENT_OUTCOME_CONFIRMED
    for _ in range(2):
        result = await shop.settle(order_id, outcome, validate_only=True)
        assert result.status == pb.ORDER_STATUS_CONFIRMED
        request = pb.GetOrderRequest(order_id=order_id)
        order = await ask(shop.orders.stub.GetOrder, request)
        assert order.status == pb.ORDER_STATUS_PENDING
    async with shop.orders.engine.connect() as connection:
        events = await connection.scalar(text("SELECT count(*) FROM outbox"))
    assert events == 1
    await shop.settle(order_id, outcome)
    result = await shop.settle(order_id, pb.SETTLEMENT_OUTCOME_REJECTED, validate_only=True)
    assert result.status == pb.ORDER_STATUS_CONFIRMED
