"""The broker's queues, read and written behind the services' backs."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika

from proto.events import AUDIT_QUEUE, CONTENT_TYPE, DEAD_LETTER_QUEUE, INVENTORY_QUEUE
from tests.support.system import System
from tests.support.waiting import eventually

Message = dict[str, Any]
"""A message as the management page shows it."""


async def queued_messages(
    system: System, queue: str, wanted: Callable[[Message], bool]
) -> list[Message]:
    """The wanted messages of a queue, oldest first; they stay there."""
    found = await system.broker.peek(queue, count=10_000)
    return [message for message in found if wanted(message)]


async def audited(system: System, order_id: str, *types: str) -> list[Message]:
    """An order's events in the audit queue, once there are those of all these types."""

    def concerns(message: Message) -> bool:
        # Strangers' messages may be anything, JSON or not.
        return order_id in message["payload"] and event_of(message)["subject"] == order_id

    async def look() -> list[Message]:
        return await queued_messages(system, AUDIT_QUEUE, concerns)

    return await eventually(
        look, lambda found: {message["routing_key"] for message in found} >= set(types)
    )


def event_of(message: Message) -> dict[str, Any]:
    """The CloudEvent in a message."""
    return dict(json.loads(message["payload"]))


@asynccontextmanager
async def channel(system: System) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel of the tests' own, with confirms."""
    async with await aio_pika.connect(system.broker.url) as connection:
        yield await connection.channel()


async def deliver(system: System, body: bytes, message_id: str, **headers: Any) -> None:
    """Put a message into the consumer's queue, past producer and exchange."""
    message = aio_pika.Message(
        body,
        message_id=message_id,
        content_type=CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers=headers,
    )
    async with channel(system) as opened:
        await opened.default_exchange.publish(message, INVENTORY_QUEUE)


async def dead_letter(system: System, message_id: str) -> Message:
    """The dead letter with this message id, once it is there."""

    async def look() -> list[Message]:
        return await queued_messages(
            system,
            DEAD_LETTER_QUEUE,
            lambda message: message["properties"].get("message_id") == message_id,
        )

    return (await eventually(look))[0]
