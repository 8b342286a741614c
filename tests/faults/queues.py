"""The broker's queues, read and written behind the services' backs."""

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from proto.events import CONTENT_TYPE, INVENTORY_QUEUE
from tests.support.infrastructure import Broker
from tests.support.waiting import eventually

READ_SECONDS = 30.0


@dataclass(frozen=True)
class Letter:
    """A message that lies in a queue."""

    message_id: str
    routing_key: str
    body: bytes
    headers: dict[str, str]


async def deliver(broker: Broker, body: bytes, message_id: str) -> None:
    """Put a message into the consumer's queue, past producer and exchange."""
    await deliver_all(broker, [(message_id, body)])


async def deliver_all(
    broker: Broker, messages: Iterable[tuple[str, bytes]], queue: str = INVENTORY_QUEUE
) -> None:
    """Put many messages, by id and body, into a queue in their order."""
    async with await aio_pika.connect(broker.url, timeout=10) as connection:
        channel = await connection.channel()
        waiting = []
        for message_id, body in messages:
            message = aio_pika.Message(
                body,
                message_id=message_id,
                content_type=CONTENT_TYPE,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            waiting.append(channel.default_exchange.publish(message, queue))
            if len(waiting) == 500:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)


async def queued_messages(broker: Broker, queue: str) -> list[Letter]:
    """The messages of a queue, oldest first; they stay there."""
    found: list[Letter] = []
    complete = asyncio.Event()
    async with await aio_pika.connect(broker.url, timeout=10) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        wanted = declared.declaration_result.message_count or 0

        async def arrive(message: AbstractIncomingMessage) -> None:
            found.append(
                Letter(
                    message.message_id or "",
                    message.routing_key or "",
                    message.body,
                    {name: str(value) for name, value in message.headers.items()},
                )
            )
            if len(found) >= wanted:
                complete.set()

        if wanted:
            await declared.consume(arrive)
            async with asyncio.timeout(READ_SECONDS):
                await complete.wait()

    async def back() -> int:
        return await waiting(broker, queue)

    # Nothing was acked: with its channel gone, each message goes back to its place.
    await eventually(back, lambda count: count >= wanted)
    return found


async def message_ids(broker: Broker, queue: str) -> set[str]:
    """The ids of the messages that lie in a queue, which stay there."""
    return {letter.message_id for letter in await queued_messages(broker, queue)}


async def refuses(broker: Broker, queue: str) -> None:
    """Return once a queue takes no more; it is filled with what nobody can read until then."""

    async def refused() -> bool:
        try:
            await deliver_all(broker, [(str(uuid.uuid4()), b"{")], queue)
        except aio_pika.exceptions.DeliveryError:
            return True
        return False

    await eventually(refused)


async def purge(broker: Broker, queue: str) -> None:
    """Throw away what waits in a queue."""
    async with await aio_pika.connect(broker.url, timeout=10) as connection:
        await (await (await connection.channel()).get_queue(queue)).purge()


async def waiting(broker: Broker, queue: str) -> int:
    """How many messages wait to be delivered."""
    async with await aio_pika.connect(broker.url, timeout=10) as connection:
        declared = await (await connection.channel()).declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def unfinished(broker: Broker, queue: str) -> int:
    """How many messages wait to be delivered or acked, as of some seconds ago."""
    async with broker.management() as api:
        answer = await api.get(f"/api/queues/{quote(broker.name, safe='')}/{queue}")
        answer.raise_for_status()
        return int(answer.json().get("messages", -1))
