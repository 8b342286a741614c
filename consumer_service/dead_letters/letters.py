"""Dead letters: how a message becomes one, and how those in the queue are read."""

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.abc import DeliveredMessage

from consumer_service.domain import PoisonMessage
from proto.dead_letters import REASON_HEADER, TIME_HEADER, dead_since, order_id_of, reason_of
from proto.events import DEAD_LETTER_QUEUE
from service_kit.rabbitmq.consume import browse_queue

MAX_REASON = 1_000
"""Characters of a reason in the header; the log has all of it."""

_DEAD_LETTER_HEADERS = (
    REASON_HEADER,
    TIME_HEADER,
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)
"""Prefixes of the headers that the consumer and RabbitMQ add to a dead letter."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter queue, which holds it back until its channel is closed."""

    message: AbstractIncomingMessage

    @property
    def event_id(self) -> str:
        """The event's id, under which it is handled again."""
        return self.message.message_id or ""

    @property
    def type(self) -> str:
        """The event's type: the routing key."""
        return self.message.routing_key or ""

    @property
    def order_id(self) -> str:
        """The order that the event is about; "" if its envelope cannot be read."""
        return order_id_of(self.message.body)

    @property
    def reason(self) -> str:
        """Why it cannot be handled, as the consumer or else the broker noted it."""
        return reason_of(self.message.headers)

    @property
    def since(self) -> dt.datetime | None:
        """When it became a dead letter, if that was noted."""
        return dead_since(self.message.headers)

    def original(self) -> aio_pika.Message:
        """The message as it was before it became a dead letter, ready to be published."""
        return aio_pika.Message(
            self.message.body,
            message_id=self.message.message_id,
            type=self.message.type,
            content_type=self.message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers={
                name: value
                for name, value in self.message.headers.items()
                if not name.startswith(_DEAD_LETTER_HEADERS)
            },
        )


async def browse_dead_letters(channel: AbstractChannel, limit: int) -> AsyncIterator[DeadLetter]:
    """The dead letters, oldest first; those not redriven return when the channel is closed."""
    async for message in browse_queue(channel, DEAD_LETTER_QUEUE, limit):
        yield DeadLetter(message)


async def count_dead_letters(channel: AbstractChannel) -> int:
    """How many dead letters the queue has that nobody is reading."""
    declared = await channel.declare_queue(DEAD_LETTER_QUEUE, passive=True)
    return declared.declaration_result.message_count or 0


def to_dead_letter(message: DeliveredMessage, error: PoisonMessage) -> aio_pika.Message:
    """A copy of the message that carries the reason and the time."""
    properties = message.header.properties
    return aio_pika.Message(
        message.body,
        message_id=properties.message_id,
        type=properties.message_type,
        content_type=properties.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={
            **_encodable(properties.headers or {}),
            REASON_HEADER: str(error)[:MAX_REASON],
            TIME_HEADER: dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        },
    )


def _encodable(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _encodable_value(value) for name, value in headers.items()}


def _encodable_value(value: Any) -> Any:
    """The value, or what replaces text in another encoding than UTF-8, which was read as bytes."""
    match value:
        case bytes():
            return value.decode("latin-1")
        case dict():
            return _encodable(value)
        case list():
            return [_encodable_value(each) for each in value]
        case _:
            return value
