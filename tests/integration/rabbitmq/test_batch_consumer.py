"""BatchConsumer against a real broker: whole messages, in order, bounded, acked together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage

from service_kit.rabbitmq import connection as connections
from service_kit.rabbitmq.connection import open_channel, open_connection
from service_kit.rabbitmq.consume import BatchConsumer
from tests.integration.environment import management
from tests.integration.rabbitmq.tls_proxy import behind_proxy, behind_tls
from tests.support.infrastructure import Broker
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually

QUEUE = "batches"
PREFETCH = 50
BODIES = [b"", b"small", b"of several frames" * 20_000, b"last"]


@pytest_asyncio.fixture
async def channel(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel for the test, with an empty queue that consumers may share."""
    async with open_connection(broker.url, "test") as connection:
        channel = await open_channel(connection, publisher_confirms=True)
        await channel.declare_queue(QUEUE, arguments={"x-queue-type": "quorum"}, durable=True)
        yield channel
        await channel.queue_delete(QUEUE)


@asynccontextmanager
async def consuming(url: str, prefetch: int = PREFETCH) -> AsyncIterator[BatchConsumer]:
    async with open_connection(url, "batch consumer") as connection:
        yield await BatchConsumer.start(await open_channel(connection), QUEUE, prefetch)


async def publish(channel: AbstractChannel, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        await channel.default_exchange.publish(aio_pika.Message(body), QUEUE)


async def take(consumer: BatchConsumer, count: int) -> list[DeliveredMessage]:
    """This many messages, or more if they arrive together."""
    messages: list[DeliveredMessage] = []
    while len(messages) < count:
        messages += await consumer.next_batch(PREFETCH)
    return messages


def bodies_of(messages: Sequence[DeliveredMessage]) -> list[bytes]:
    return [message.body for message in messages]


async def ready(channel: AbstractChannel) -> int:
    declared = await channel.declare_queue(QUEUE, passive=True)
    return declared.declaration_result.message_count or 0


async def test_messages_of_any_size_arrive_whole_and_in_order(
    broker: Broker, channel: AbstractChannel
) -> None:
    async with consuming(broker.url) as consumer:
        await publish(channel, BODIES)
        messages = await take(consumer, len(BODIES))
    assert bodies_of(messages) == BODIES
    assert [message.delivery_tag for message in messages] == [1, 2, 3, 4]


async def test_messages_that_arrived_together_are_one_batch_of_limited_size(
    broker: Broker, channel: AbstractChannel
) -> None:
    numbers = [str(number).encode() for number in range(40)]
    await publish(channel, numbers)
    async with consuming(broker.url) as consumer:

        async def arrived() -> int:
            return consumer._arrived.qsize()

        await eventually(arrived, lambda count: count == len(numbers))
        batches = [await consumer.next_batch(15) for _ in range(3)]
    assert [len(batch) for batch in batches] == [15, 15, 10]
    assert [body for batch in batches for body in bodies_of(batch)] == numbers


async def test_no_more_messages_than_the_prefetch_wait_in_memory(
    broker: Broker, channel: AbstractChannel
) -> None:
    await publish(channel, [b"message"] * 30)
    async with consuming(broker.url, prefetch=10) as consumer:
        await eventually(lambda: ready(channel), lambda count: count == 20)
        first = await take(consumer, 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await consumer.next_batch(1)
        assert await ready(channel) == 20
        await consumer.ack(first[:4])
        await take(consumer, 4)
        assert await ready(channel) == 16


async def test_acking_a_batch_acks_all_messages_before_it_and_none_after(
    broker: Broker, channel: AbstractChannel
) -> None:
    numbers = [str(number).encode() for number in range(6)]
    await publish(channel, numbers)
    async with consuming(broker.url) as consumer:
        messages = await take(consumer, 6)
        await consumer.ack(messages[2:4])
    async with consuming(broker.url) as consumer:
        again = await take(consumer, 2)
        await consumer.ack(again)
    assert bodies_of(again) == numbers[4:]
    assert [message.redelivered for message in again] == [True, True]
    assert await ready(channel) == 0


async def test_a_cancelled_consumer_gets_no_more_messages_and_can_ack_those_it_has(
    broker: Broker, channel: AbstractChannel
) -> None:
    async with consuming(broker.url) as consumer:
        await publish(channel, [b"before"])
        batch = await take(consumer, 1)
        await consumer.cancel()
        await publish(channel, [b"after"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await consumer.next_batch(1)
        await consumer.ack(batch)
    assert await ready(channel) == 1


async def test_a_consumer_fails_when_the_broker_cancels_it(
    broker: Broker, channel: AbstractChannel
) -> None:
    async with consuming(broker.url) as consumer:
        failure = asyncio.create_task(consumer.fail_when_ended())
        await publish(channel, [b"message"])
        await take(consumer, 1)
        assert not failure.done()
        await channel.queue_delete(QUEUE)
        with pytest.raises(ConnectionError, match="cancelled"):
            await failure


@pytest.mark.parametrize("by", ["broker", "network"])
async def test_a_consumer_fails_when_its_connection_ends_while_it_waits_for_messages(
    broker: Broker, channel: AbstractChannel, by: str
) -> None:
    async with (
        management(broker) as page,
        proxied(broker.url) as (proxy, url),
        consuming(url) as consumer,
    ):
        failure = asyncio.create_task(consumer.fail_when_ended())
        waiting = asyncio.create_task(consumer.next_batch(1))
        if by == "broker":
            await page.kill("batch consumer")
        else:
            proxy.drop()
        with pytest.raises(ConnectionError, match="closed"):
            async with asyncio.timeout(10):
                await failure
        assert not waiting.done()
        waiting.cancel()


async def test_a_failure_that_is_no_longer_awaited_does_not_disturb_others(
    broker: Broker, channel: AbstractChannel
) -> None:
    async with consuming(broker.url) as consumer:
        given_up = asyncio.create_task(consumer.fail_when_ended())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait({given_up})
        failure = asyncio.create_task(consumer.fail_when_ended())
        await channel.queue_delete(QUEUE)
        with pytest.raises(ConnectionError):
            await failure


async def test_a_delivery_that_cannot_be_read_ends_the_connection_and_none_after_it_arrives(
    broker: Broker, channel: AbstractChannel
) -> None:
    def damage(chunk: bytes) -> bytes:
        # The last octet of a frame is fixed: a reader that misses it has lost its place.
        return chunk.replace(b"damaged\xce", b"damaged!")

    async with behind_proxy(broker.url, from_broker=damage) as url, consuming(url) as consumer:
        failure = asyncio.create_task(consumer.fail_when_ended())
        await publish(channel, [b"first"])
        assert bodies_of(await take(consumer, 1)) == [b"first"]
        await publish(channel, [b"damaged", b"third"])
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                await failure
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await consumer.next_batch(1)
    async with consuming(broker.url) as consumer:
        assert bodies_of(await take(consumer, 3)) == [b"first", b"damaged", b"third"]


async def test_the_connection_survives_a_batch_that_takes_longer_than_the_heartbeat(
    broker: Broker, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEARTBEAT_SECONDS", 1)
    await publish(channel, [b"slow", b"next"])
    async with consuming(broker.url, prefetch=1) as consumer:
        failure = asyncio.create_task(consumer.fail_when_ended())
        batch = await take(consumer, 1)
        # Longer than both sides wait for a sign of life: the broker 2 s, the library 6 s.
        await asyncio.sleep(7)
        assert not failure.done()
        await consumer.ack(batch)
        assert bodies_of(await take(consumer, 1)) == [b"next"]
        failure.cancel()


async def test_messages_arrive_through_tls_if_the_brokers_certificate_is_trusted(
    broker: Broker, channel: AbstractChannel, tmp_path: Path
) -> None:
    async with (
        behind_tls(broker.url, tmp_path) as (url, certificate),
        consuming(f"{url}?cafile={certificate}") as consumer,
    ):
        await publish(channel, BODIES)
        assert bodies_of(await take(consumer, len(BODIES))) == BODIES
