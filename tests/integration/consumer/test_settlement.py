"""Orders through outbox, producer, broker, consumer and inventory, until they are settled."""

import json
from dataclasses import replace

import pytest

from proto import order_pb2 as order_pb
from proto.events import (
    AUDIT_QUEUE,
    DEAD_LETTER_QUEUE,
    INVENTORY_QUEUE,
    ORDER_CANCELLED,
    ORDER_CREATED,
)
from service_kit import context
from tests.integration.environment import (
    Environment,
    peek,
    purge,
    put,
    ready,
    take_messages,
)
from tests.support.infrastructure import Infrastructure
from tests.support.services import orders_running
from tests.support.waiting import eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def audited(environment: Environment, order_id: str) -> list[str]:
    """The types of the events of an order, in the order of their publication."""
    return [
        body["type"]
        for each in await peek(environment.broker, AUDIT_QUEUE)
        if (body := json.loads(each["payload"]))["subject"] == order_id
    ]


async def stock_becomes(environment: Environment, product: int, stock: int) -> None:
    await eventually(lambda: environment.stock(product), lambda found: found == stock)


async def test_orders_are_confirmed_their_stock_deducted_and_their_messages_acked(
    environment: Environment,
) -> None:
    product, other = await environment.product(1000), await environment.product(500)
    async with environment.consuming():
        placed = await environment.place({product: 3, other: 1}, times=40)
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.stock(product) == 1000 - 3 * 40
    assert await environment.movements(other) == [500] + [-1] * 40
    assert await ready(environment.broker) == 0
    assert await ready(environment.broker, DEAD_LETTER_QUEUE) == 0


async def test_the_events_of_an_order_are_in_the_audit_queue_with_the_context_of_its_request(
    environment: Environment, consumer: str
) -> None:
    with context.bound(context.CallContext("request-1", TRACEPARENT)):
        (placed,) = await environment.place({await environment.product(): 1})
    assert await environment.statuses([placed]) == {"CONFIRMED"}
    await eventually(
        lambda: audited(environment, placed),
        lambda found: found == ["order.created", "order.confirmed"],
    )
    for message in await peek(environment.broker, AUDIT_QUEUE):
        headers = message["properties"]["headers"]
        assert headers == {"traceparent": TRACEPARENT, "x-request-id": "request-1"}


async def test_more_orders_than_one_batch_holds_are_all_confirmed(environment: Environment) -> None:
    product = await environment.product(10_000)
    placed = await environment.place({product: 1}, times=250)
    await environment.queued(250)
    async with environment.consuming(batch_max_items=30):
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.stock(product) == 10_000 - 250
    assert await ready(environment.broker) == 0


async def test_two_consumers_share_the_work_and_deduct_each_stock_once(
    environment: Environment,
) -> None:
    product = await environment.product(1000)
    async with environment.consuming(batch_max_items=20), environment.consuming(batch_max_items=20):
        placed = await environment.place({product: 1}, times=200)
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.stock(product) == 800
    assert await ready(environment.broker) == 0


async def test_an_order_for_more_than_is_left_is_rejected_with_its_shortage(
    environment: Environment,
) -> None:
    product, plenty = await environment.product(10), await environment.product(10)
    placed = await environment.place({product: 6, plenty: 1}, times=2)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED", "REJECTED"}
    first, second = [await environment.order(each) for each in placed]
    rejected = first if first.shortages else second
    assert rejected.status == order_pb.ORDER_STATUS_REJECTED
    assert [(s.product_id, s.requested, s.available) for s in rejected.shortages] == [
        (product, 6, 4)
    ]
    assert (await environment.stock(product), await environment.stock(plenty)) == (4, 9)


async def test_cancelling_a_confirmed_order_restores_its_stock_once(
    environment: Environment,
) -> None:
    product = await environment.product(10)
    async with environment.consuming():
        (placed,) = await environment.place({product: 4})
        assert await environment.statuses([placed]) == {"CONFIRMED"}
        await environment.cancel(placed)
        await stock_becomes(environment, product, 10)
        await environment.released(placed)
        cancelled = [
            json.loads(each["payload"])
            for each in await peek(environment.broker, AUDIT_QUEUE)
            if each["routing_key"] == ORDER_CANCELLED
        ]
        await put(environment.broker, *cancelled * 3, routing_key=ORDER_CANCELLED)
        (later,) = await environment.place({product: 1})
        assert await environment.statuses([later]) == {"CONFIRMED"}
    assert await environment.movements(product) == [10, -4, 4, -1]


async def test_a_cancellation_that_overtakes_its_order_leaves_no_stock_deducted(
    environment: Environment,
) -> None:
    product = await environment.product(10)
    (placed,) = await environment.place({product: 4})
    await environment.cancel(placed)
    await environment.queued(2)
    created, cancelled = await take_messages(environment.broker)
    await put(environment.broker, cancelled, routing_key=ORDER_CANCELLED)
    async with environment.consuming():
        await environment.released(placed)
        await put(environment.broker, created)
        (later,) = await environment.place({product: 1})
        assert await environment.statuses([later]) == {"CONFIRMED"}
    assert await environment.movements(product) == [10, -1]
    assert await environment.statuses([placed]) == {"CANCELLED"}


@pytest.mark.parametrize("first", [ORDER_CREATED, ORDER_CANCELLED])
async def test_creation_and_cancellation_in_one_batch_deduct_no_stock_in_either_order(
    environment: Environment, first: str
) -> None:
    product = await environment.product(10)
    (placed,) = await environment.place({product: 4})
    await environment.cancel(placed)
    await environment.queued(2)
    bodies = await take_messages(environment.broker)
    await put(environment.broker, *(bodies if first == ORDER_CREATED else reversed(bodies)))
    async with environment.consuming():
        await environment.released(placed)
    assert await environment.stock(product) == 10
    assert await environment.statuses([placed]) == {"CANCELLED"}
    assert await ready(environment.broker) == 0


async def test_an_event_that_is_delivered_again_changes_nothing(environment: Environment) -> None:
    product = await environment.product(10)
    (placed,) = await environment.place({product: 4})
    await environment.queued(1)
    (created,) = await take_messages(environment.broker)
    await put(environment.broker, created, created)  # twice in one batch
    async with environment.consuming():
        assert await environment.statuses([placed]) == {"CONFIRMED"}
        await put(environment.broker, created)  # and once after
        (later,) = await environment.place({product: 1})
        assert await environment.statuses([later]) == {"CONFIRMED"}
    assert await environment.movements(product) == [10, -4, -1]
    assert (await audited(environment, placed)).count("order.confirmed") == 1
    history = [change.status for change in (await environment.order(placed)).history]
    assert history == [order_pb.ORDER_STATUS_PENDING, order_pb.ORDER_STATUS_CONFIRMED]


async def test_an_order_whose_event_was_lost_is_republished_and_settled(
    environment: Environment, infrastructure: Infrastructure
) -> None:
    """The order service has its own database: with another one's interval it would compete."""
    product = await environment.product(10)
    async with (
        infrastructure.database() as database_url,
        orders_running(
            database_url,
            users_address=environment.users_address,
            inventory_address=environment.inventory.address,
            producer_address=environment.producer_address,
            order_republish_seconds=0.5,
        ) as orders,
    ):
        republishing = replace(environment, orders=orders)
        (placed,) = await republishing.place({product: 1})
        # It may be in the queue more than once already, because it is republished continuously.
        await eventually(lambda: ready(environment.broker))
        await purge(environment.broker, INVENTORY_QUEUE)
        await eventually(lambda: ready(environment.broker))
        async with republishing.consuming():
            assert await republishing.statuses([placed]) == {"CONFIRMED"}
    assert await environment.stock(product) == 9
