"""publish_batch against a real broker, compared with the library's public way to publish."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel
from aiormq.abc import AbstractChannel as AbstractUnderlayChannel
from aiormq.exceptions import ChannelInvalidStateError

from service_kit.rabbitmq.batch_publish import (
    Message,
    PublishOutcome,
    owes_confirms,
    publish_batch,
)
from service_kit.rabbitmq.connection import open_channel, open_connection
from tests.support.infrastructure import Broker
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually

QUEUE = "published"
TIMEOUT = 5.0
CONFIRMED = PublishOutcome.CONFIRMED


def message(body: bytes = b"body", routing_key: str = QUEUE, **headers: str) -> Message:
    return Message(str(uuid.uuid4()), routing_key, body, "application/json", headers)


@pytest_asyncio.fixture
async def channel(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel with confirms, and an empty queue."""
    async with open_connection(broker.url, "test") as connection:
        channel = await open_channel(connection, publisher_confirms=True)
        await channel.declare_queue(QUEUE, arguments={"x-queue-type": "quorum"}, durable=True)
        yield channel
        await channel.queue_delete(QUEUE)


@pytest_asyncio.fixture
async def underlay(channel: AbstractChannel) -> AbstractUnderlayChannel:
    return await channel.get_underlay_channel()


@pytest_asyncio.fixture
async def hanging(
    broker: Broker, channel: AbstractChannel
) -> AsyncIterator[tuple[TcpProxy, AbstractUnderlayChannel]]:
    """A channel through a proxy that forwards nothing."""
    async with proxied(broker.url) as (proxy, url), open_connection(url, "test") as connection:
        publishing = await open_channel(connection, publisher_confirms=True)
        underlay = await publishing.get_underlay_channel()
        proxy.pause()
        yield proxy, underlay
        await proxy.resume()


async def received(channel: AbstractChannel, count: int) -> list[aio_pika.abc.AbstractMessage]:
    queue = await channel.get_queue(QUEUE)
    return [await queue.get(no_ack=True, timeout=TIMEOUT) for _ in range(count)]


@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 300_000])
async def test_a_message_arrives_as_if_the_library_had_published_it(
    channel: AbstractChannel, underlay: AbstractUnderlayChannel, size: int
) -> None:
    """Bodies of more than 131,064 bytes travel in several frames."""
    ours = Message("ours", QUEUE, b"x" * size, "text/plain", {"name": "Grüße ☃", "empty": ""})
    theirs = aio_pika.Message(
        ours.body,
        message_id="theirs",
        type=ours.routing_key,
        content_type=ours.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers=dict(ours.headers),
    )
    assert await publish_batch(underlay, "", [ours], TIMEOUT) == [CONFIRMED]
    await channel.default_exchange.publish(theirs, QUEUE, mandatory=True)
    first, second = await received(channel, 2)
    assert first.body == second.body == ours.body
    assert first.info() | {"message_id": "theirs"} == second.info() | {
        name: first.info()[name] for name in ("delivery_tag", "redelivered")
    }
    assert first.message_id == "ours"


async def test_messages_of_a_batch_are_queued_in_their_order(
    channel: AbstractChannel, underlay: AbstractUnderlayChannel
) -> None:
    batch = [message(str(number).encode()) for number in range(300)]
    assert await publish_batch(underlay, "", batch, TIMEOUT) == [CONFIRMED] * 300
    assert [each.body for each in await received(channel, 300)] == [each.body for each in batch]


async def test_batches_and_single_publishes_share_a_channel(
    channel: AbstractChannel, underlay: AbstractUnderlayChannel
) -> None:
    """Delivery tags stay right with any publishers, also concurrent ones."""
    outcomes = await asyncio.gather(
        *(publish_batch(underlay, "", [message() for _ in range(7)], TIMEOUT) for _ in range(5)),
        *(
            channel.default_exchange.publish(aio_pika.Message(b"single"), QUEUE, mandatory=True)
            for _ in range(5)
        ),
    )
    assert outcomes[:5] == [[CONFIRMED] * 7] * 5
    assert len(await received(channel, 40)) == 40


async def test_an_unroutable_message_fails_alone(
    channel: AbstractChannel, underlay: AbstractUnderlayChannel
) -> None:
    batch = [message(), message(routing_key="nowhere"), message()]
    outcomes = await publish_batch(underlay, "", batch, TIMEOUT)
    assert outcomes == [CONFIRMED, PublishOutcome.UNROUTABLE, CONFIRMED]
    assert [each.message_id for each in await received(channel, 2)] == [batch[0].id, batch[2].id]


async def test_a_message_that_a_full_queue_refuses_is_nacked(
    channel: AbstractChannel, underlay: AbstractUnderlayChannel
) -> None:
    full = await channel.declare_queue(
        "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    batch = [message(), message(routing_key="full"), message(routing_key="full"), message()]
    outcomes = await publish_batch(underlay, "", batch, TIMEOUT)
    await full.delete(if_empty=False)
    assert outcomes == [CONFIRMED, CONFIRMED, PublishOutcome.NACKED, CONFIRMED]


async def test_no_messages_have_no_outcomes(underlay: AbstractUnderlayChannel) -> None:
    assert await publish_batch(underlay, "", [], TIMEOUT) == []


async def test_confirms_that_do_not_arrive_in_time_are_owed_until_they_arrive(
    hanging: tuple[TcpProxy, AbstractUnderlayChannel],
) -> None:
    proxy, underlay = hanging
    assert not owes_confirms(underlay)
    outcomes = await publish_batch(underlay, "", [message(), message()], 0.2)
    assert outcomes == [PublishOutcome.UNCONFIRMED] * 2
    assert owes_confirms(underlay)
    await proxy.resume()

    async def settled() -> bool:
        return not owes_confirms(underlay)

    await eventually(settled)
    assert await publish_batch(underlay, "", [message()], TIMEOUT) == [CONFIRMED]


async def test_a_channel_that_closes_leaves_its_messages_unconfirmed_at_once(
    hanging: tuple[TcpProxy, AbstractUnderlayChannel],
) -> None:
    proxy, underlay = hanging
    publishing = asyncio.create_task(publish_batch(underlay, "", [message()], timeout=60))
    await proxy.holding()
    proxy.drop()
    async with asyncio.timeout(5):
        assert await publishing == [PublishOutcome.UNCONFIRMED]


async def test_a_closed_channel_takes_no_messages(
    channel: AbstractChannel, underlay: AbstractUnderlayChannel
) -> None:
    await channel.close()
    with pytest.raises(ChannelInvalidStateError):
        await publish_batch(underlay, "", [message()], TIMEOUT)
    await channel.reopen()
