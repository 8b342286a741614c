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
from tests.integration.environment import (
    Environment,
    Json,
    amqp_channel,
    dead_letter,
    envelope,
    management,
    peek,
    publish_probe,
    purge,
    put,
    queued_messages,
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
async def empty_queues(environment: Environment) -> None:
    for queue in (INVENTORY_QUEUE, DEAD_LETTER_QUEUE, AUDIT_QUEUE):
        await purge(environment.broker, queue)


@pytest_asyncio.fixture
async def consumer(environment: Environment) -> AsyncIterator[str]:
    """A consumer that runs all through the test."""
    async with environment.consuming() as address:
        yield address


async def audited(environment: Environment, order_id: str) -> list[str]:
    """The types of the events about an order, in the order of their publication."""
    return [
        body["type"]
        for each in await peek(environment.broker, AUDIT_QUEUE)
        if (body := json.loads(each["payload"]))["subject"] == order_id
    ]


async def taken_out(environment: Environment) -> list[Json]:
    """Take every message out of inventory's queue; their bodies."""
    bodies = []
    async with amqp_channel(environment.broker) as channel:
        queue = await channel.get_queue(INVENTORY_QUEUE)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            bodies.append(json.loads(message.body))
    return bodies


async def consumers(environment: Environment) -> int:
    """How many consumers inventory's queue has, as of now."""
    async with amqp_channel(environment.broker) as channel:
        declared = await channel.declare_queue(INVENTORY_QUEUE, passive=True)
        return declared.declaration_result.consumer_count or 0


async def stock_is(environment: Environment, product: int, stock: int) -> None:
    await eventually(lambda: environment.stock(product), lambda found: found == stock)


async def is_released(environment: Environment, order_id: str) -> bool:
    """Whether nothing is outstanding any more for the order."""
    query = text("SELECT next_offer_at IS NULL FROM orders WHERE id = :id")
    async with environment.orders.engine.connect() as connection:
        return bool(await connection.scalar(query, {"id": uuid.UUID(order_id)}))


async def test_orders_are_confirmed_their_stock_taken_and_their_messages_acked(
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


async def test_an_orders_way_can_be_read_in_the_audit_queue_with_its_callers_context(
    environment: Environment, consumer: str
) -> None:
    with context.bound(context.CallContext("request-1", TRACEPARENT)):
        (placed,) = await environment.place({await environment.product(): 1})
    assert await environment.statuses([placed]) == {"CONFIRMED"}

    async def way() -> list[str]:
        return await audited(environment, placed)

    await eventually(way, lambda found: found == ["order.created", "order.confirmed"])
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


async def test_an_order_that_comes_too_late_for_the_stock_is_rejected_with_its_shortage(
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


async def test_cancelling_a_confirmed_order_puts_its_stock_back_once(
    environment: Environment,
) -> None:
    product = await environment.product(10)
    async with environment.consuming():
        (placed,) = await environment.place({product: 4})
        assert await environment.statuses([placed]) == {"CONFIRMED"}
        await environment.cancel(placed)
        await stock_is(environment, product, 10)
        await eventually(lambda: is_released(environment, placed))
        cancelled = [
            json.loads(each["payload"])
            for each in await peek(environment.broker, AUDIT_QUEUE)
            if each["routing_key"] == ORDER_CANCELLED
        ]
        await put(environment.broker, *cancelled * 3, routing_key=ORDER_CANCELLED)
        (later,) = await environment.place({product: 1})
        assert await environment.statuses([later]) == {"CONFIRMED"}
    assert await environment.movements(product) == [10, -4, 4, -1]


async def test_a_cancellation_that_overtakes_its_order_leaves_no_stock_taken(
    environment: Environment,
) -> None:
    product = await environment.product(10)
    (placed,) = await environment.place({product: 4})
    await environment.cancel(placed)
    await environment.queued(2)
    created, cancelled = await taken_out(environment)
    await put(environment.broker, cancelled, routing_key=ORDER_CANCELLED)
    async with environment.consuming():
        await eventually(lambda: is_released(environment, placed))
        await put(environment.broker, created)
        (later,) = await environment.place({product: 1})
        assert await environment.statuses([later]) == {"CONFIRMED"}
    assert await environment.movements(product) == [10, -1]
    assert await environment.statuses([placed]) == {"CANCELLED"}


@pytest.mark.parametrize("first", [ORDER_CREATED, ORDER_CANCELLED])
async def test_creation_and_cancellation_in_one_batch_take_no_stock_in_either_order(
    environment: Environment, first: str
) -> None:
    product = await environment.product(10)
    (placed,) = await environment.place({product: 4})
    await environment.cancel(placed)
    await environment.queued(2)
    bodies = await taken_out(environment)
    await put(environment.broker, *(bodies if first == ORDER_CREATED else reversed(bodies)))
    async with environment.consuming():
        await eventually(lambda: is_released(environment, placed))
    assert await environment.stock(product) == 10
    assert await environment.statuses([placed]) == {"CANCELLED"}
    assert await ready(environment.broker) == 0


async def test_an_event_delivered_again_changes_nothing(environment: Environment) -> None:
    product = await environment.product(10)
    (placed,) = await environment.place({product: 4})
    await environment.queued(1)
    (created,) = await taken_out(environment)
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
    environment: Environment,
) -> None:
    product = await environment.product(100)
    before = await environment.place({product: 1}, times=3)
    await environment.queued(3)
    kinds = poison(product)
    ids = await put(environment.broker, *(body for body, _ in kinds.values()))
    after = await environment.place({product: 1}, times=3)
    await environment.queued(6 + len(kinds))
    async with environment.consuming():
        assert await environment.statuses([*before, *after]) == {"CONFIRMED"}

        async def dead() -> dict[str, Json]:
            return await queued_messages(environment.broker, DEAD_LETTER_QUEUE)

        letters = await eventually(dead, lambda found: len(found) == len(kinds))
    reasons = {
        kind: letters[message_id]["properties"]["headers"][REASON_HEADER].partition(":")[0]
        for kind, message_id in zip(kinds, ids, strict=True)
    }
    assert reasons == {kind: reason for kind, (_, reason) in kinds.items()}
    assert await ready(environment.broker) == 0
    assert await environment.stock(product) == 100 - 6


async def test_stock_taken_for_an_order_that_nobody_placed_is_given_back(
    environment: Environment, consumer: str
) -> None:
    product = await environment.product(10)
    (message_id,) = await put(
        environment.broker, envelope(ORDER_CREATED, uuid.uuid4(), {product: 4})
    )
    await dead_letter(environment.broker, message_id)
    assert await environment.movements(product) == [10, -4, 4]


class NotText(str):
    """A header that another client wrote in another encoding."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return b"\xff"


async def test_a_dead_letter_keeps_what_is_needed_to_send_it_again(
    environment: Environment, consumer: str
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
    (message_id,) = await put(environment.broker, b"no JSON", **headers)
    letter = await dead_letter(environment.broker, message_id)
    assert letter["payload"] == "no JSON"
    assert letter["routing_key"] == ORDER_CREATED
    assert letter["properties"]["delivery_mode"] == 2
    kept = letter["properties"]["headers"]
    assert kept["traceparent"] == TRACEPARENT
    assert set(headers) <= set(kept)


async def test_a_dead_letter_that_finds_no_queue_waits_until_there_is_one(
    environment: Environment, consumer: str
) -> None:
    async with management(environment.broker) as page:
        await page.delete("queues", DEAD_LETTER_QUEUE)
        (message_id,) = await put(environment.broker, b"no JSON")
        await eventually(lambda: page.get("queues", DEAD_LETTER_QUEUE))
    await dead_letter(environment.broker, message_id)


async def test_an_event_that_inventory_refuses_is_isolated_and_the_rest_goes_on(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    lines = [{"product_id": product, "quantity": 600_000}] * 2
    body = envelope(ORDER_CREATED, uuid.uuid4())
    body["data"]["items"] = lines
    placed = await environment.place({product: 1}, times=3)
    (message_id,) = await put(environment.broker, body)
    placed += await environment.place({product: 1}, times=3)
    await environment.queued(7)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED"}
        letter = await dead_letter(environment.broker, message_id)
    assert letter["properties"]["headers"][REASON_HEADER].startswith("invalid_quantity")
    assert await environment.stock(product) == 100 - 6


async def test_an_event_on_which_inventory_stumbles_is_isolated_and_the_rest_goes_on(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "FAULT_ATTEMPTS", 2)
    product, cursed = await environment.product(100), await environment.product(100)
    async with environment.inventory.engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE products ADD CHECK (id <> {cursed} OR stock >= 100) NOT VALID")
        )
    placed = await environment.place({product: 1}, times=5)
    (stumbling,) = await environment.place({product: 1, cursed: 1})
    placed += await environment.place({product: 1}, times=5)
    await environment.queued(11)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED"}

        async def dead() -> list[Json]:
            return await peek(environment.broker, DEAD_LETTER_QUEUE)

        (letter,) = await eventually(dead)
    assert json.loads(letter["payload"])["subject"] == stumbling
    assert letter["properties"]["headers"][REASON_HEADER].startswith("internal")
    assert await environment.stock(product) == 100 - 10
    assert await environment.statuses([stumbling], wait=0) == {"PENDING"}


async def test_while_inventory_is_away_messages_wait_unacked_and_are_handled_when_it_is_back(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with proxied(environment.inventory.address) as (proxy, address):
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        async with environment.consuming(inventory=address), management(environment.broker) as page:

            async def unacked() -> int:
                found = await page.get("queues", INVENTORY_QUEUE)
                return int(found.get("messages_unacknowledged", 0))

            await eventually(unacked, lambda count: count == 5)
            assert await environment.statuses(placed, wait=0) == {"PENDING"}
            await proxy.resume()
            assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await ready(environment.broker) == 0
    assert await ready(environment.broker, DEAD_LETTER_QUEUE) == 0


async def test_when_the_orders_are_away_after_the_stock_was_taken_they_are_settled_later(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with proxied(environment.orders.address) as (proxy, address):
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        async with environment.consuming(orders=address):
            await eventually(lambda: environment.stock(product), lambda stock: stock < 100)
            assert await environment.statuses(placed, wait=0) == {"PENDING"}
            await proxy.resume()
            assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.movements(product) == [100] + [-1] * 5
    assert await ready(environment.broker) == 0


async def test_a_batch_whose_connection_was_killed_is_delivered_again_and_applied_once(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with (
        proxied(environment.orders.address) as (proxy, address),
        proxied(environment.broker.url) as (broker, url),
        environment.consuming(orders=address, broker_url=url),
        management(environment.broker) as page,
    ):
        assert await environment.statuses(await environment.place({product: 1})) == {"CONFIRMED"}
        proxy.pause()
        placed = await environment.place({product: 1}, times=5)
        await proxy.holding()  # stock is taken, and the settlements hang
        await page.kill("consumer_service")

        async def connections() -> int:
            return broker.accepted

        await eventually(connections, lambda count: count == 2)
        await proxy.resume()
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.movements(product) == [100] + [-1] * 6
    assert await ready(environment.broker) == 0


async def test_the_consumer_comes_back_after_the_broker_was_away(environment: Environment) -> None:
    product = await environment.product(100)
    async with (
        proxied(environment.broker.url) as (proxy, url),
        environment.consuming(broker_url=url),
    ):
        placed = await environment.place({product: 1}, times=5)
        assert await environment.statuses(placed) == {"CONFIRMED"}
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        await proxy.resume()
        assert await environment.statuses(placed) == {"CONFIRMED"}


async def test_however_often_the_consumers_connection_drops_nothing_is_lost_or_applied_twice(
    environment: Environment,
) -> None:
    """The connection drops while batches are under way, at whatever moment that happens to be."""
    product = await environment.product(1000)
    async with (
        proxied(environment.broker.url) as (proxy, url),
        environment.consuming(broker_url=url, batch_max_items=10),
    ):
        placed, bad = [], []
        for _ in range(6):
            placed += await environment.place({product: 1}, times=50)
            bad += await put(environment.broker, *[b"no JSON"] * 5)
            before = len(await environment.movements(product))

            async def under_way(before: int = before) -> int:
                return len(await environment.movements(product)) - before

            await eventually(under_way, every=0)
            proxy.drop()
        assert await environment.statuses(placed) == {"CONFIRMED"}

        async def dead() -> set[str]:
            return set(await queued_messages(environment.broker, DEAD_LETTER_QUEUE))

        await eventually(dead, lambda found: found == set(bad))
    assert await environment.stock(product) == 1000 - 300
    assert await ready(environment.broker) == 0


async def test_the_consumer_comes_back_after_its_queue_was_deleted(
    environment: Environment, consumer: str
) -> None:
    async with management(environment.broker) as page:
        await page.delete("queues", INVENTORY_QUEUE)
        await eventually(lambda: page.get("queues", INVENTORY_QUEUE))
    await eventually(lambda: consumers(environment))
    placed = await environment.place({await environment.product(): 1})
    assert await environment.statuses(placed) == {"CONFIRMED"}


async def test_a_consumer_started_before_the_topology_consumes_once_it_is_there(
    environment: Environment, infrastructure: Infrastructure
) -> None:
    product = await environment.product(10)
    async with (
        infrastructure.virtual_host() as fresh,
        environment.consuming(broker_url=fresh.url),
        producer_running(fresh.url) as (_, stub),
    ):
        await publish_probe(stub)
        (placed,) = await environment.place({product: 4})
        await environment.queued(1)
        await put(fresh, *await taken_out(environment))
        assert await environment.statuses([placed]) == {"CONFIRMED"}


async def test_two_consumers_share_the_work_and_take_each_stock_once(
    environment: Environment,
) -> None:
    product = await environment.product(1000)
    async with environment.consuming(batch_max_items=20), environment.consuming(batch_max_items=20):
        placed = await environment.place({product: 1}, times=200)
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.stock(product) == 800
    assert await ready(environment.broker) == 0


async def test_stopping_finishes_and_acks_the_batch_in_hand_and_takes_no_more(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with proxied(environment.orders.address) as (proxy, address), AsyncExitStack() as stack:
        await stack.enter_async_context(environment.consuming(orders=address))
        assert await environment.statuses(await environment.place({product: 1})) == {"CONFIRMED"}
        proxy.pause()
        in_hand = await environment.place({product: 1})
        await proxy.holding()  # stock is taken, and the settlement hangs
        fetched = await environment.place({product: 1}, times=3)
        await environment.published()
        await environment.queued(0)
        stopping = asyncio.create_task(stack.aclose())

        async def untouched() -> int:
            fetched.extend(await environment.place({product: 1}))
            await environment.published()
            return await ready(environment.broker)

        await eventually(untouched)
        await proxy.resume()
        await stopping
    assert await environment.statuses(in_hand, wait=0) == {"CONFIRMED"}
    assert await environment.statuses(fetched, wait=0) == {"PENDING"}
    assert await ready(environment.broker) == len(fetched)


async def test_an_idle_consumer_stops_at_once(environment: Environment) -> None:
    async with environment.consuming():
        await eventually(lambda: consumers(environment))
        started = time.monotonic()
    assert time.monotonic() - started < 2


async def test_stopping_gives_up_a_batch_that_cannot_be_finished_and_it_is_delivered_again(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "DRAIN_SECONDS", 0.3)
    monkeypatch.setattr(consumer_main, "DRAIN_SECONDS", 0.3)
    product = await environment.product(100)
    async with proxied(environment.orders.address) as (proxy, address):
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        async with environment.consuming(orders=address):
            await eventually(lambda: environment.stock(product), lambda stock: stock < 100)
            started = time.monotonic()
        assert time.monotonic() - started < 3
    await environment.queued(5)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.stock(product) == 95


async def test_an_order_whose_event_was_lost_is_offered_again_and_settled(
    environment: Environment, order_database_url: str
) -> None:
    product = await environment.product(10)
    async with orders_running(
        order_database_url,
        users_address=environment.users_address,
        inventory_address=environment.inventory.address,
        producer_address=environment.producer_address,
        order_reoffer_seconds=0.5,
    ) as impatient:
        item = order_pb.NewOrderItem(product_id=product, quantity=1)
        request = order_pb.CreateOrderRequest(user_id=environment.user_id, items=[item])
        placed = await ask(impatient.stub.CreateOrder, request)
        await environment.queued(1)
        await purge(environment.broker, INVENTORY_QUEUE)
        await eventually(lambda: ready(environment.broker))
        async with environment.consuming():
            assert await environment.statuses([placed.id]) == {"CONFIRMED"}
    assert await environment.stock(product) == 9
