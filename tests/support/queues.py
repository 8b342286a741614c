"""Messages in the broker's queues, read and written without the services."""

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from proto.events import CONTENT_TYPE, INVENTORY_QUEUE
from tests.support.infrastructure import Broker
from tests.support.waiting import eventually

READ_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MAX_UNCONFIRMED = 500


@dataclass(frozen=True)
class QueuedMessage:
    """A message in a queue."""

    message_id: str
    routing_key: str
    body: bytes
    headers: dict[str, str]


async def deliver(broker: Broker, body: bytes, message_id: str, **headers: Any) -> None:
    """Put one message into the consumer's queue, without producer and exchange."""
    await deliver_all(broker, [(message_id, body)], headers=headers)


async def deliver_all(
    broker: Broker,
    messages: Iterable[tuple[str, bytes]],
    queue: str = INVENTORY_QUEUE,
    headers: dict[str, Any] | None = None,
) -> None:
    """Put messages, by id and body, into a queue in this order."""
    async with await aio_pika.connect(broker.url, timeout=CONNECT_SECONDS) as connection:
        channel = await connection.channel()
        unconfirmed = []
        for message_id, body in messages:
            message = aio_pika.Message(
                body,
                message_id=message_id,
                content_type=CONTENT_TYPE,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                headers=headers,
            )
            unconfirmed.append(channel.default_exchange.publish(message, queue))
            if len(unconfirmed) == MAX_UNCONFIRMED:
                await asyncio.gather(*unconfirmed)
                unconfirmed.clear()
        await asyncio.gather(*unconfirmed)


async def queued_messages(broker: Broker, queue: str) -> list[QueuedMessage]:
    """The messages of a queue, oldest first; they stay in it."""
    found: list[QueuedMessage] = []
    complete = asyncio.Event()
    async with await aio_pika.connect(broker.url, timeout=CONNECT_SECONDS) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        expected = declared.declaration_result.message_count or 0

        async def receive(message: AbstractIncomingMessage) -> None:
            found.append(
                QueuedMessage(
                    message.message_id or "",
                    message.routing_key or "",
                    message.body,
                    {name: str(value) for name, value in message.headers.items()},
                )
            )
            if len(found) >= expected:
                complete.set()

        if expected:
            await declared.consume(receive)
            async with asyncio.timeout(READ_SECONDS):
                await complete.wait()

    async def returned() -> int:
        return await ready_count(broker, queue)

    # Nothing was acked: when the channel closes, each message returns to its place.
    await eventually(returned, lambda count: count >= expected)
    return found


async def message_ids(broker: Broker, queue: str) -> set[str]:
    """The ids of the messages in a queue; they stay in it."""
    return {message.message_id for message in await queued_messages(broker, queue)}


async def fill_until_refused(broker: Broker, queue: str) -> None:
    """Put unreadable messages into a queue until it refuses one."""

    async def refused() -> bool:
        try:
            await deliver_all(broker, [(str(uuid.uuid4()), b"{")], queue)
        except aio_pika.exceptions.DeliveryError:
            return True
        return False

    await eventually(refused)


async def purge(broker: Broker, queue: str) -> None:
    """Delete the messages that are ready in a queue."""
    async with await aio_pika.connect(broker.url, timeout=CONNECT_SECONDS) as connection:
        await (await (await connection.channel()).get_queue(queue)).purge()


async def ready_count(broker: Broker, queue: str) -> int:
    """How many messages are ready to be delivered."""
    async with await aio_pika.connect(broker.url, timeout=CONNECT_SECONDS) as connection:
        declared = await (await connection.channel()).declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def total_count(broker: Broker, queue: str) -> int:
    """How many messages are ready or unacked, as of some seconds ago."""
    async with broker.management() as api:
        response = await api.get(f"/api/queues/{quote(broker.name, safe='')}/{queue}")
        response.raise_for_status()
        return int(response.json().get("messages", -1))
