"""The whole chain: orders, outbox, producer, broker, consumer, inventory, and back."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from sqlalchemy import text

import consumer_service.__main__ as consumer_main
from consumer_service import operations, subscriber
from proto import order_pb2 as order_pb
from proto.events import (
    AUDIT_QUEUE,
    DEAD_LETTER_QUEUE,
    INVENTORY_QUEUE,
    ORDER_CANCELLED,
    ORDER_CREATED,
    REASON_HEADER,
)
from service_kit import context
from tests.integration.world import (
    Json,
    World,
    amqp_channel,
    dead_letter,
    envelope,
    lying_in,
    management,
    peek,
    publish_probe,
    purge,
    put,
    ready,
)
from tests.support.infrastructure import Infrastructure
from tests.support.services import (
    ask,
    orders_running,
    producer_running,
)
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture(autouse=True)
async def empty_queues(world: World) -> None:
    for queue in (INVENTORY_QUEUE, DEAD_LETTER_QUEUE, AUDIT_QUEUE):
        await purge(world.broker, queue)


@pytest_asyncio.fixture
async def consumer(world: World) -> AsyncIterator[str]:
    """A consumer that runs all through the test."""
    async with world.consuming() as address:
        yield address


async def audited(world: World, order_id: str) -> list[str]:
    """The types of the events about an order, in the order of their publication."""
    return [
        body["type"]
        for each in await peek(world.broker, AUDIT_QUEUE)
        if (body := json.loads(each["payload"]))["subject"] == order_id
    ]


async def taken_out(world: World) -> list[Json]:
    """Take every message out of inventory's queue; their bodies."""
    bodies = []
    async with amqp_channel(world.broker) as channel:
        queue = await channel.get_queue(INVENTORY_QUEUE)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            bodies.append(json.loads(message.body))
    return bodies


async def consumers(world: World) -> int:
    """How many consumers inventory's queue has, as of now."""
    async with amqp_channel(world.broker) as channel:
        declared = await channel.declare_queue(INVENTORY_QUEUE, passive=True)
        return declared.declaration_result.consumer_count or 0


async def stock_is(world: World, product: int, stock: int) -> None:
    await eventually(lambda: world.stock(product), lambda found: found == stock)


async def is_released(world: World, order_id: str) -> bool:
    """Whether nothing is outstanding any more for the order."""
    query = text("SELECT next_offer_at IS NULL FROM orders WHERE id = :id")
    async with world.orders.engine.connect() as connection:
        return bool(await connection.scalar(query, {"id": uuid.UUID(order_id)}))


async def test_orders_are_confirmed_their_stock_taken_and_their_messages_acked(
    world: World,
) -> None:
    product, other = await world.product(1000), await world.product(500)
    async with world.consuming():
        placed = await world.place({product: 3, other: 1}, times=40)
        assert await world.statuses(placed) == {"CONFIRMED"}
    assert await world.stock(product) == 1000 - 3 * 40
    assert await world.movements(other) == [500] + [-1] * 40
    assert await ready(world.broker) == 0
    assert await ready(world.broker, DEAD_LETTER_QUEUE) == 0


async def test_an_orders_way_can_be_read_in_the_audit_queue_with_its_callers_context(
    world: World, consumer: str
) -> None:
    with context.bound(context.CallContext("request-1", TRACEPARENT)):
        (placed,) = await world.place({await world.product(): 1})
    assert await world.statuses([placed]) == {"CONFIRMED"}

    async def way() -> list[str]:
        return await audited(world, placed)

    await eventually(way, lambda found: found == ["order.created", "order.confirmed"])
    for message in await peek(world.broker, AUDIT_QUEUE):
        headers = message["properties"]["headers"]
        assert headers == {"traceparent": TRACEPARENT, "x-request-id": "request-1"}


async def test_more_orders_than_one_batch_holds_are_all_confirmed(world: World) -> None:
    product = await world.product(10_000)
    placed = await world.place({product: 1}, times=250)
    await world.queued(250)
    async with world.consuming(batch_max_items=30):
        assert await world.statuses(placed) == {"CONFIRMED"}
    assert await world.stock(product) == 10_000 - 250
    assert await ready(world.broker) == 0


async def test_an_order_that_comes_too_late_for_the_stock_is_rejected_with_its_shortage(
    world: World,
) -> None:
    product, plenty = await world.product(10), await world.product(10)
    placed = await world.place({product: 6, plenty: 1}, times=2)
    async with world.consuming():
        assert await world.statuses(placed) == {"CONFIRMED", "REJECTED"}
    first, second = [await world.order(each) for each in placed]
    rejected = first if first.shortages else second
    assert rejected.status == order_pb.ORDER_STATUS_REJECTED
    assert [(s.product_id, s.requested, s.available) for s in rejected.shortages] == [
        (product, 6, 4)
    ]
    assert (await world.stock(product), await world.stock(plenty)) == (4, 9)


async def test_cancelling_a_confirmed_order_puts_its_stock_back_once(world: World) -> None:
    product = await world.product(10)
    async with world.consuming():
        (placed,) = await world.place({product: 4})
        assert await world.statuses([placed]) == {"CONFIRMED"}
        await world.cancel(placed)
        await stock_is(world, product, 10)
        await eventually(lambda: is_released(world, placed))
        cancelled = [
            json.loads(each["payload"])
            for each in await peek(world.broker, AUDIT_QUEUE)
            if each["routing_key"] == ORDER_CANCELLED
        ]
        await put(world.broker, *cancelled * 3, routing_key=ORDER_CANCELLED)
        (later,) = await world.place({product: 1})
        assert await world.statuses([later]) == {"CONFIRMED"}
    assert await world.movements(product) == [10, -4, 4, -1]


async def test_a_cancellation_that_overtakes_its_order_leaves_no_stock_taken(
    world: World,
) -> None:
    product = await world.product(10)
    (placed,) = await world.place({product: 4})
    await world.cancel(placed)
    await world.queued(2)
    created, cancelled = await taken_out(world)
    await put(world.broker, cancelled, routing_key=ORDER_CANCELLED)
    async with world.consuming():
        await eventually(lambda: is_released(world, placed))
        await put(world.broker, created)
        (later,) = await world.place({product: 1})
        assert await world.statuses([later]) == {"CONFIRMED"}
    assert await world.movements(product) == [10, -1]
    assert await world.statuses([placed]) == {"CANCELLED"}


@pytest.mark.parametrize("first", [ORDER_CREATED, ORDER_CANCELLED])
async def test_creation_and_cancellation_in_one_batch_take_no_stock_in_either_order(
    world: World, first: str
) -> None:
    product = await world.product(10)
    (placed,) = await world.place({product: 4})
    await world.cancel(placed)
    await world.queued(2)
    bodies = await taken_out(world)
    await put(world.broker, *(bodies if first == ORDER_CREATED else reversed(bodies)))
    async with world.consuming():
        await eventually(lambda: is_released(world, placed))
    assert await world.stock(product) == 10
    assert await world.statuses([placed]) == {"CANCELLED"}
    assert await ready(world.broker) == 0


async def test_an_event_delivered_again_changes_nothing(world: World) -> None:
    product = await world.product(10)
    (placed,) = await world.place({product: 4})
    await world.queued(1)
    (created,) = await taken_out(world)
    await put(world.broker, created, created)  # twice in one batch
    async with world.consuming():
        assert await world.statuses([placed]) == {"CONFIRMED"}
        await put(world.broker, created)  # and once after
        (later,) = await world.place({product: 1})
        assert await world.statuses([later]) == {"CONFIRMED"}
    assert await world.movements(product) == [10, -4, -1]
    assert (await audited(world, placed)).count("order.confirmed") == 1
    history = [change.status for change in (await world.order(placed)).history]
    assert history == [order_pb.ORDER_STATUS_PENDING, order_pb.ORDER_STATUS_CONFIRMED]


def poison(product: int) -> dict[str, tuple[bytes | Json, str]]:
    """What can never be handled, and the reason it goes to the dead letters with."""
    order = uuid.uuid4()
    ok = envelope(ORDER_CREATED, order, {product: 1})

    def with_data(**data: object) -> Json:
        return {**ok, "data": {**ok["data"], **data}}

    def with_quantity(quantity: object) -> Json:
        return envelope(ORDER_CREATED, order, {product: quantity})

    nested = b"[" * 100_000 + b"]" * 100_000
    return {
        "nothing": (b"", "unreadable"),
        "no JSON": (b"order 17, please", "unreadable"),
        "no UTF-8": (b'{"specversion":"\xff"}', "unreadable"),
        "half a character": (json.dumps(ok).encode().replace(b"order.c", b"\\ud800"), "unreadable"),
        "too deep": (b'{"specversion":"1.0","data":' + nested + b"}", "unreadable"),
        "no object": (b"[]", "unreadable"),
        "no data": ({key: ok[key] for key in ok if key != "data"}, "unreadable"),
        "no order": (with_data(order_id="17"), "unreadable"),
        "no items": (with_data(items=[]), "unreadable"),
        "more items than an order has": (
            envelope(ORDER_CREATED, order, dict.fromkeys(range(1, 102), 1)),
            "unreadable",
        ),
        "no product": (with_data(items=[{"quantity": 1}]), "unreadable"),
        "quantity 0": (with_quantity(0), "unreadable"),
        "quantity below 0": (with_quantity(-1), "unreadable"),
        "quantity above 1,000,000": (with_quantity(1_000_001), "unreadable"),
        "quantity beyond any integer": (with_quantity(10**400), "unreadable"),
        "half a piece": (with_quantity(0.5), "unreadable"),
        "another specversion": ({**ok, "specversion": "2.0"}, "unknown_version"),
        "another dataschema": ({**ok, "dataschema": "urn:order:v2"}, "unknown_version"),
        "no dataschema": ({**ok, "dataschema": ""}, "unknown_version"),
        "a type not handled": ({**ok, "type": "order.confirmed"}, "unknown_type"),
        "a type never heard of": ({**ok, "type": "order.eaten"}, "unknown_type"),
        "a product that does not exist": (
            envelope(ORDER_CREATED, order, {product: 1, 2**63 - 1: 1}),
            "unknown_product",
        ),
        "an order that does not exist": (
            envelope(ORDER_CREATED, uuid.uuid4(), {product: 1}),
            "unknown_order",
        ),
        "the cancellation of an order that does not exist": (
            envelope(ORDER_CANCELLED, uuid.uuid4(), {product: 1}),
            "unknown_order",
        ),
    }


async def test_what_can_never_be_handled_becomes_a_dead_letter_and_the_rest_goes_on(
    world: World,
) -> None:
    product = await world.product(100)
    before = await world.place({product: 1}, times=3)
    await world.queued(3)
    kinds = poison(product)
    ids = await put(world.broker, *(body for body, _ in kinds.values()))
    after = await world.place({product: 1}, times=3)
    await world.queued(6 + len(kinds))
    async with world.consuming():
        assert await world.statuses([*before, *after]) == {"CONFIRMED"}

        async def dead() -> dict[str, Json]:
            return await lying_in(world.broker, DEAD_LETTER_QUEUE)

        letters = await eventually(dead, lambda found: len(found) == len(kinds))
    reasons = {
        kind: letters[message_id]["properties"]["headers"][REASON_HEADER].partition(":")[0]
        for kind, message_id in zip(kinds, ids, strict=True)
    }
    assert reasons == {kind: reason for kind, (_, reason) in kinds.items()}
    assert await ready(world.broker) == 0
    assert await world.stock(product) == 100 - 6


async def test_stock_taken_for_an_order_that_nobody_placed_is_given_back(
    world: World, consumer: str
) -> None:
    product = await world.product(10)
    (message_id,) = await put(world.broker, envelope(ORDER_CREATED, uuid.uuid4(), {product: 4}))
    await dead_letter(world.broker, message_id)
    assert await world.movements(product) == [10, -4, 4]


class NotText(str):
    """A header that another client wrote in another encoding."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return b"\xff"


async def test_a_dead_letter_keeps_what_is_needed_to_send_it_again(
    world: World, consumer: str
) -> None:
    headers: Json = {
        "traceparent": TRACEPARENT,
        "x-request-id": "request-1",
        # As on a message that was a dead letter before.
        "x-death": [{"count": 1, "queue": NotText(), "routing-keys": [ORDER_CREATED]}],
        "number": 2**40,
        "fraction": 0.5,
        "flag": True,
        "nothing": None,
        "other-bytes": NotText(),
    }
    (message_id,) = await put(world.broker, b"no JSON", **headers)
    letter = await dead_letter(world.broker, message_id)
    assert letter["payload"] == "no JSON"
    assert letter["routing_key"] == ORDER_CREATED
    assert letter["properties"]["delivery_mode"] == 2
    kept = letter["properties"]["headers"]
    assert kept["traceparent"] == TRACEPARENT
    assert set(headers) <= set(kept)


async def test_a_dead_letter_that_finds_no_queue_waits_until_there_is_one(
    world: World, consumer: str
) -> None:
    async with management(world.broker) as page:
        await page.delete("queues", DEAD_LETTER_QUEUE)
        (message_id,) = await put(world.broker, b"no JSON")
        await eventually(lambda: page.get("queues", DEAD_LETTER_QUEUE))
    await dead_letter(world.broker, message_id)


async def test_an_event_that_inventory_refuses_is_isolated_and_the_rest_goes_on(
    world: World,
) -> None:
    product = await world.product(100)
    lines = [{"product_id": product, "quantity": 600_000}] * 2
    body = envelope(ORDER_CREATED, uuid.uuid4())
    body["data"]["items"] = lines
    placed = await world.place({product: 1}, times=3)
    (message_id,) = await put(world.broker, body)
    placed += await world.place({product: 1}, times=3)
    await world.queued(7)
    async with world.consuming():
        assert await world.statuses(placed) == {"CONFIRMED"}
        letter = await dead_letter(world.broker, message_id)
    assert letter["properties"]["headers"][REASON_HEADER].startswith("invalid_quantity")
    assert await world.stock(product) == 100 - 6


async def test_an_event_on_which_inventory_stumbles_is_isolated_and_the_rest_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "FAULT_ATTEMPTS", 2)
    product, cursed = await world.product(100), await world.product(100)
    async with world.inventory.engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE products ADD CHECK (id <> {cursed} OR stock >= 100) NOT VALID")
        )
    placed = await world.place({product: 1}, times=5)
    (stumbling,) = await world.place({product: 1, cursed: 1})
    placed += await world.place({product: 1}, times=5)
    await world.queued(11)
    async with world.consuming():
        assert await world.statuses(placed) == {"CONFIRMED"}

        async def dead() -> list[Json]:
            return await peek(world.broker, DEAD_LETTER_QUEUE)

        (letter,) = await eventually(dead)
    assert json.loads(letter["payload"])["subject"] == stumbling
    assert letter["properties"]["headers"][REASON_HEADER].startswith("internal")
    assert await world.stock(product) == 100 - 10
    assert await world.statuses([stumbling], wait=0) == {"PENDING"}


async def test_while_inventory_is_away_messages_wait_unacked_and_are_handled_when_it_is_back(
    world: World,
) -> None:
    product = await world.product(100)
    async with proxied(world.inventory.address) as (proxy, address):
        await proxy.cut()
        placed = await world.place({product: 1}, times=5)
        await world.queued(5)
        async with world.consuming(inventory=address), management(world.broker) as page:

            async def unacked() -> int:
                found = await page.get("queues", INVENTORY_QUEUE)
                return int(found.get("messages_unacknowledged", 0))

            await eventually(unacked, lambda count: count == 5)
            assert await world.statuses(placed, wait=0) == {"PENDING"}
            await proxy.resume()
            assert await world.statuses(placed) == {"CONFIRMED"}
    assert await ready(world.broker) == 0
    assert await ready(world.broker, DEAD_LETTER_QUEUE) == 0


async def test_when_the_orders_are_away_after_the_stock_was_taken_they_are_settled_later(
    world: World,
) -> None:
    product = await world.product(100)
    async with proxied(world.orders.address) as (proxy, address):
        await proxy.cut()
        placed = await world.place({product: 1}, times=5)
        await world.queued(5)
        async with world.consuming(orders=address):
            await eventually(lambda: world.stock(product), lambda stock: stock < 100)
            assert await world.statuses(placed, wait=0) == {"PENDING"}
            await proxy.resume()
            assert await world.statuses(placed) == {"CONFIRMED"}
    assert await world.movements(product) == [100] + [-1] * 5
    assert await ready(world.broker) == 0


async def test_a_batch_whose_connection_was_killed_is_delivered_again_and_applied_once(
    world: World,
) -> None:
    product = await world.product(100)
    async with (
        proxied(world.orders.address) as (proxy, address),
        proxied(world.broker.url) as (broker, url),
        world.consuming(orders=address, broker_url=url),
        management(world.broker) as page,
    ):
        assert await world.statuses(await world.place({product: 1})) == {"CONFIRMED"}
        proxy.pause()
        placed = await world.place({product: 1}, times=5)
        await proxy.holding()  # stock is taken, and the settlements hang
        await page.kill("consumer_service")

        async def connections() -> int:
            return broker.accepted

        await eventually(connections, lambda count: count == 2)
        await proxy.resume()
        assert await world.statuses(placed) == {"CONFIRMED"}
    assert await world.movements(product) == [100] + [-1] * 6
    assert await ready(world.broker) == 0


async def test_the_consumer_comes_back_after_the_broker_was_away(world: World) -> None:
    product = await world.product(100)
    async with (
        proxied(world.broker.url) as (proxy, url),
        world.consuming(broker_url=url),
    ):
        placed = await world.place({product: 1}, times=5)
        assert await world.statuses(placed) == {"CONFIRMED"}
        await proxy.cut()
        placed = await world.place({product: 1}, times=5)
        await world.queued(5)
        await proxy.resume()
        assert await world.statuses(placed) == {"CONFIRMED"}


async def test_however_often_the_consumers_connection_drops_nothing_is_lost_or_applied_twice(
    world: World,
) -> None:
    """The connection drops while batches are under way, at whatever moment that happens to be."""
    product = await world.product(1000)
    async with (
        proxied(world.broker.url) as (proxy, url),
        world.consuming(broker_url=url, batch_max_items=10),
    ):
        placed, bad = [], []
        for _ in range(6):
            placed += await world.place({product: 1}, times=50)
            bad += await put(world.broker, *[b"no JSON"] * 5)
            before = len(await world.movements(product))

            async def under_way(before: int = before) -> int:
                return len(await world.movements(product)) - before

            await eventually(under_way, every=0)
            proxy.drop()
        assert await world.statuses(placed) == {"CONFIRMED"}

        async def dead() -> set[str]:
            return set(await lying_in(world.broker, DEAD_LETTER_QUEUE))

        await eventually(dead, lambda found: found == set(bad))
    assert await world.stock(product) == 1000 - 300
    assert await ready(world.broker) == 0


async def test_the_consumer_comes_back_after_its_queue_was_deleted(
    world: World, consumer: str
) -> None:
    async with management(world.broker) as page:
        await page.delete("queues", INVENTORY_QUEUE)
        await eventually(lambda: page.get("queues", INVENTORY_QUEUE))
    await eventually(lambda: consumers(world))
    placed = await world.place({await world.product(): 1})
    assert await world.statuses(placed) == {"CONFIRMED"}


async def test_a_consumer_started_before_the_topology_consumes_once_it_is_there(
    world: World, infrastructure: Infrastructure
) -> None:
    product = await world.product(10)
    async with (
        infrastructure.virtual_host() as fresh,
        world.consuming(broker_url=fresh.url),
        producer_running(fresh.url) as (_, stub),
    ):
        await publish_probe(stub)
        (placed,) = await world.place({product: 4})
        await world.queued(1)
        await put(fresh, *await taken_out(world))
        assert await world.statuses([placed]) == {"CONFIRMED"}


async def test_two_consumers_share_the_work_and_take_each_stock_once(world: World) -> None:
    product = await world.product(1000)
    async with world.consuming(batch_max_items=20), world.consuming(batch_max_items=20):
        placed = await world.place({product: 1}, times=200)
        assert await world.statuses(placed) == {"CONFIRMED"}
    assert await world.stock(product) == 800
    assert await ready(world.broker) == 0


async def test_stopping_finishes_and_acks_the_batch_in_hand_and_takes_no_more(
    world: World,
) -> None:
    product = await world.product(100)
    async with proxied(world.orders.address) as (proxy, address), AsyncExitStack() as stack:
        await stack.enter_async_context(world.consuming(orders=address))
        assert await world.statuses(await world.place({product: 1})) == {"CONFIRMED"}
        proxy.pause()
        in_hand = await world.place({product: 1})
        await proxy.holding()  # stock is taken, and the settlement hangs
        fetched = await world.place({product: 1}, times=3)
        await world.published()
        await world.queued(0)
        stopping = asyncio.create_task(stack.aclose())

        async def untouched() -> int:
            fetched.extend(await world.place({product: 1}))
            await world.published()
            return await ready(world.broker)

        await eventually(untouched)
        await proxy.resume()
        await stopping
    assert await world.statuses(in_hand, wait=0) == {"CONFIRMED"}
    assert await world.statuses(fetched, wait=0) == {"PENDING"}
    assert await ready(world.broker) == len(fetched)


async def test_an_idle_consumer_stops_at_once(world: World) -> None:
    async with world.consuming():
        await eventually(lambda: consumers(world))
        started = time.monotonic()
    assert time.monotonic() - started < 2


async def test_stopping_gives_up_a_batch_that_cannot_be_finished_and_it_is_delivered_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "DRAIN_SECONDS", 0.3)
    monkeypatch.setattr(consumer_main, "DRAIN_SECONDS", 0.3)
    product = await world.product(100)
    async with proxied(world.orders.address) as (proxy, address):
        await proxy.cut()
        placed = await world.place({product: 1}, times=5)
        await world.queued(5)
        async with world.consuming(orders=address):
            await eventually(lambda: world.stock(product), lambda stock: stock < 100)
            started = time.monotonic()
        assert time.monotonic() - started < 3
    await world.queued(5)
    async with world.consuming():
        assert await world.statuses(placed) == {"CONFIRMED"}
    assert await world.stock(product) == 95


async def test_an_order_whose_event_was_lost_is_offered_again_and_settled(
    world: World, order_database_url: str
) -> None:
    product = await world.product(10)
    async with orders_running(
        order_database_url,
        users_address=world.users_address,
        inventory_address=world.inventory.address,
        producer_address=world.producer_address,
        order_reoffer_seconds=0.5,
    ) as impatient:
        item = order_pb.NewOrderItem(product_id=product, quantity=1)
        request = order_pb.CreateOrderRequest(user_id=world.user_id, items=[item])
        placed = await ask(impatient.stub.CreateOrder, request)
        await world.queued(1)
        await purge(world.broker, INVENTORY_QUEUE)
        await eventually(lambda: ready(world.broker))
        async with world.consuming():
            assert await world.statuses([placed.id]) == {"CONFIRMED"}
    assert await world.stock(product) == 9
