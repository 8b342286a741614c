"""PublishEvents against a real broker: each event is confirmed or refused alone, in time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiormq
import pytest
import pytest_asyncio

from producer_service import publisher
from proto import producer_pb2 as pb
from proto.events import (
    AUDIT_QUEUE,
    CONTENT_TYPE,
    EXCHANGE,
    INVENTORY_QUEUE,
    ORDER_CONFIRMED,
    ORDER_CREATED,
)
from service_kit import context
from service_kit.errors import InvalidArgument, ServiceError, Unavailable
from tests.integration.environment import (
    amqp_channel,
    envelope,
    event,
    management,
    peek,
    publish,
    purge,
    queued_messages,
)
from tests.support.infrastructure import Broker
from tests.support.services import ask, producer_running
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually, free_port

if TYPE_CHECKING:
    from proto.producer_pb2_grpc import ProducerServiceAsyncStub as Stub

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def reasons(stub: "Stub", *events: pb.Event) -> list[str]:
    """Publish; for each event "" if it was confirmed, or the reason, also if it is the call's."""
    try:
        return [error.reason if error else "" for error in await publish(stub, *events)]
    except ServiceError as error:
        return [error.reason] * len(events)


async def publishing(stub: "Stub") -> None:
    """Return once events are confirmed."""
    await eventually(lambda: reasons(stub, event()), lambda found: found == [""])


@pytest_asyncio.fixture(scope="module")
async def producer(broker: Broker) -> "AsyncIterator[Stub]":
    async with producer_running(broker.url) as (_, stub):
        await publishing(stub)
        yield stub


@pytest_asyncio.fixture(autouse=True)
async def empty_queues(broker: Broker, producer: "Stub") -> None:
    await purge(broker, INVENTORY_QUEUE, AUDIT_QUEUE)


@pytest_asyncio.fixture
async def behind_proxy(broker: Broker) -> "AsyncIterator[tuple[TcpProxy, Stub]]":
    """A producer that reaches the broker through a proxy."""
    async with proxied(broker.url) as (proxy, url), producer_running(url) as (_, stub):
        await publishing(stub)
        yield proxy, stub


async def test_a_confirmed_event_is_in_the_queue_and_in_the_audit_queue(
    broker: Broker, producer: "Stub"
) -> None:
    sent = event(traceparent=TRACEPARENT, request_id="request-1")
    assert await publish(producer, sent) == [None]
    for queue in (INVENTORY_QUEUE, AUDIT_QUEUE):
        message = (await queued_messages(broker, queue))[sent.id]
        assert message["payload_encoding"] == "string"  # a person can read it
        assert json.loads(message["payload"]) == json.loads(sent.body)
        assert message["routing_key"] == ORDER_CREATED


async def test_a_published_event_is_a_persistent_cloud_event_with_its_context(
    broker: Broker, producer: "Stub"
) -> None:
    sent = event(ORDER_CONFIRMED, traceparent=TRACEPARENT, request_id="request-1")
    assert await publish(producer, sent) == [None]
    properties = (await queued_messages(broker, AUDIT_QUEUE))[sent.id]["properties"]
    assert properties == {
        "message_id": sent.id,
        "type": ORDER_CONFIRMED,
        "content_type": CONTENT_TYPE,
        "delivery_mode": 2,
        "headers": {"traceparent": TRACEPARENT, "x-request-id": "request-1"},
    }


async def test_events_are_published_in_the_order_of_the_call(
    broker: Broker, producer: "Stub"
) -> None:
    sent = [event() for _ in range(200)]
    assert await publish(producer, *sent) == [None] * 200
    found = [each["properties"]["message_id"] for each in await peek(broker, AUDIT_QUEUE)]
    assert found == [each.id for each in sent]


async def test_the_largest_batch_is_confirmed(producer: "Stub") -> None:
    assert await reasons(producer, *(event() for _ in range(1000))) == [""] * 1000
    with pytest.raises(InvalidArgument, match="1,000"):
        await publish(producer, *(event() for _ in range(1001)))


async def test_an_unroutable_event_fails_alone(broker: Broker, producer: "Stub") -> None:
    first, unroutable, third = event(), event("order.unknown"), event()
    assert await reasons(producer, first, unroutable, third) == ["", "UNROUTABLE", ""]
    queued = await queued_messages(broker, INVENTORY_QUEUE)
    assert {first.id, third.id} <= set(queued)
    assert unroutable.id not in queued


async def test_an_unroutable_event_in_overlapping_calls_is_confirmed_in_none(
    producer: "Stub",
) -> None:
    unroutable = event("order.unknown")
    results = await asyncio.gather(*(reasons(producer, unroutable, event()) for _ in range(8)))
    assert {first for first, _ in results} <= {"UNROUTABLE", "IN_FLIGHT"}
    assert {second for _, second in results} == {""}


@pytest.mark.parametrize("type_", [ORDER_CREATED, "order.unknown"])
async def test_an_event_that_is_in_one_call_twice_is_published_once(
    producer: "Stub", type_: str
) -> None:
    """The broker returns a message by its id: of two with one id, it may confirm the wrong one."""
    repeated = event(type_)
    first, second = await reasons(producer, repeated, repeated)
    assert first == ("" if type_ == ORDER_CREATED else "UNROUTABLE")
    assert second == "INVALID_EVENT"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "x" * 256},
        {"type_": ""},
        {"type_": "x" * 256},
        {"body": b""},
        {"body": b"x" * (1024 * 1024 + 1)},
        {"request_id": "x" * 200_000},
    ],
    ids=["no id", "long id", "no type", "long type", "no body", "large body", "large context"],
)
async def test_an_invalid_event_fails_alone(producer: "Stub", changes: dict[str, Any]) -> None:
    invalid = event(**changes)
    assert await reasons(producer, event(), invalid, event()) == ["", "INVALID_EVENT", ""]


async def test_a_queue_that_is_full_refuses_its_events_alone(
    broker: Broker, producer: "Stub"
) -> None:
    async with management(broker) as page:
        await page.put(
            "policies",
            "full",
            pattern=f"^{INVENTORY_QUEUE}$",
            definition={"max-length": 1},
            **{"apply-to": "queues"},
        )
        await eventually(lambda: reasons(producer, event()), lambda found: found == ["NACKED"])
        assert await reasons(producer, event(ORDER_CONFIRMED)) == [""]
        await purge(broker, INVENTORY_QUEUE)
        await publishing(producer)
        await page.delete("policies", "full")


async def test_without_a_broker_publishing_is_unavailable_at_once() -> None:
    async with producer_running(f"amqp://guest:guest@localhost:{free_port()}/") as (_, stub):
        started = time.monotonic()
        with pytest.raises(Unavailable) as error:
            await publish(stub, event())
        assert error.value.reason == "BROKER_UNAVAILABLE"
        assert time.monotonic() - started < 1


async def test_a_producer_started_before_the_broker_publishes_once_it_is_available(
    broker: Broker,
) -> None:
    async with proxied(broker.url) as (proxy, url):
        await proxy.cut()
        async with producer_running(url) as (_, stub):
            assert await reasons(stub, event()) == ["BROKER_UNAVAILABLE"]
            await proxy.resume()
            await publishing(stub)


async def test_a_batch_whose_connection_is_lost_ends_at_once_and_reports_no_confirm(
    behind_proxy: "tuple[TcpProxy, Stub]", broker: Broker
) -> None:
    proxy, stub = behind_proxy
    batch = [event() for _ in range(300)]
    proxy.pause()
    publishing_batch = asyncio.create_task(reasons(stub, *batch))
    await proxy.holding()
    started = time.monotonic()
    await proxy.cut()
    assert set(await publishing_batch) <= {"UNCONFIRMED", "BROKER_UNAVAILABLE"}
    assert time.monotonic() - started < 1
    await proxy.resume()
    await publishing(stub)
    assert await reasons(stub, *batch) == [""] * 300
    assert {each.id for each in batch} <= set(await queued_messages(broker, AUDIT_QUEUE))


async def test_however_often_the_connection_drops_no_confirm_is_false(
    behind_proxy: "tuple[TcpProxy, Stub]", broker: Broker
) -> None:
    """The connection drops while batches are in flight, each time at another moment."""
    proxy, stub = behind_proxy
    confirmed: set[str] = set()
    seen: set[str] = set()
    for _ in range(12):
        batch = [event() for _ in range(50)]
        publishing_batch = asyncio.create_task(reasons(stub, *batch))
        before = proxy.passed

        async def sent(before: int = before) -> int:
            return proxy.passed - before

        await eventually(sent, every=0)
        proxy.drop()
        found = await publishing_batch
        seen.update(found)
        confirmed.update(each.id for each, reason in zip(batch, found, strict=True) if not reason)
        await publishing(stub)
    assert seen <= {"", "UNCONFIRMED", "BROKER_UNAVAILABLE"}
    assert confirmed <= set(await queued_messages(broker, AUDIT_QUEUE))


async def test_while_the_broker_hangs_events_are_unconfirmed_in_time_and_afterwards_confirmed(
    behind_proxy: "tuple[TcpProxy, Stub]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "CONFIRM_SECONDS", 0.3)
    proxy, stub = behind_proxy
    proxy.pause()
    started = time.monotonic()
    assert await reasons(stub, *(event() for _ in range(100))) == ["UNCONFIRMED"] * 100
    assert time.monotonic() - started < 3
    await proxy.resume()
    await publishing(stub)


async def test_while_the_broker_owes_confirms_no_more_events_are_sent(
    behind_proxy: "tuple[TcpProxy, Stub]", broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is blocked by an alarm reads later all that was written to it."""
    monkeypatch.setattr(publisher, "CONFIRM_SECONDS", 0.3)
    proxy, stub = behind_proxy
    proxy.pause()
    first, *further = [event() for _ in range(30)]
    assert await reasons(stub, first) == ["UNCONFIRMED"]
    started = time.monotonic()
    assert [await reasons(stub, each) for each in further] == [["BROKER_UNAVAILABLE"]] * 29
    assert time.monotonic() - started < 3
    await proxy.resume()
    await publishing(stub)
    assert proxy.accepted == 1
    queued = await queued_messages(broker, AUDIT_QUEUE)
    assert first.id in queued
    assert not {each.id for each in further} & queued.keys()


async def test_a_channel_whose_confirms_never_arrive_is_replaced(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "CONFIRM_SECONDS", 0.3)
    monkeypatch.setattr(publisher, "REDECLARE_SECONDS", 0.5)
    async with producer_running(broker.url) as (_, stub):
        await publishing(stub)
        with monkeypatch.context() as lossy:
            lossy.setattr(aiormq.Channel, "_confirm_delivery", lambda *_: None)
            assert await reasons(stub, event()) == ["UNCONFIRMED"]
        await publishing(stub)


async def test_a_producer_stops_in_time_while_its_broker_hangs(broker: Broker) -> None:
    async with proxied(broker.url) as (proxy, url):
        async with producer_running(url) as (_, stub):
            await publishing(stub)
            proxy.pause()
            started = time.monotonic()
        assert time.monotonic() - started < 10  # lifecycle.DRAIN_SECONDS


@pytest.mark.parametrize("what", ["connection", "exchange"])
async def test_a_producer_publishes_again_after_its_connection_or_exchange_was_removed(
    broker: Broker, what: str
) -> None:
    async with producer_running(broker.url) as (_, stub), management(broker) as page:
        await publishing(stub)
        if what == "connection":
            await page.kill("producer_service")
        else:
            await page.delete("exchanges", EXCHANGE)
            assert "INTERNAL" not in await reasons(stub, *(event() for _ in range(20)))
        await publishing(stub)


async def test_empty_headers_are_left_out(broker: Broker, producer: "Stub") -> None:
    sent = event()
    with context.bound(context.CallContext("another request", TRACEPARENT)):
        assert await publish(producer, sent) == [None]
    assert (await queued_messages(broker, AUDIT_QUEUE))[sent.id]["properties"]["headers"] == {}


@pytest.mark.parametrize("size", [0, 131_064, 131_072, 1024 * 1024 - 1000])
async def test_bodies_are_published_unchanged(broker: Broker, producer: "Stub", size: int) -> None:
    """Large bodies travel in several frames."""
    large = envelope(ORDER_CREATED, "x", name="Grüße ☃", padding="x" * size)
    sent = [event(body=json.dumps(large, indent=n).encode(), request_id="ß") for n in (1, 2, 3)]
    assert await publish(producer, *sent) == [None] * 3
    async with amqp_channel(broker) as channel:
        queue = await channel.get_queue(INVENTORY_QUEUE)
        found = [await queue.get(no_ack=True) for _ in sent]
    assert [message.body for message in found] == [each.body for each in sent]
    assert [message.headers["x-request-id"] for message in found] == ["ß"] * 3


async def test_an_empty_call_has_no_results(producer: "Stub") -> None:
    assert not (await ask(producer.PublishEvents, pb.PublishEventsRequest())).results
