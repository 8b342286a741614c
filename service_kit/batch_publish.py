"""Confirmed publishing of a whole batch with a single write.

aiormq's public `basic_publish` writes and drains each message by itself, which costs four times as
much. This is the only file that touches aiormq's inner parts (delivery tags, confirmations, the
connection's write queue); it is written against aiormq 7.2, which is pinned, and a test holds it
against the public path.
"""

import asyncio
from asyncio import FIRST_COMPLETED, Future
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import aiormq
from aiormq.abc import AbstractChannel, ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

PERSISTENT = 2


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message; `id` is its message_id and differs from all others in flight."""

    id: str
    routing_key: str
    body: bytes
    content_type: str
    headers: FieldTable


async def publish_batch(
    channel: AbstractChannel,
    exchange: str,
    messages: Sequence[Message],
    timeout: float,  # noqa: ASYNC109 - the confirms that came in time are kept
) -> list[Exception | None]:
    """Publish mandatory and persistent; for each message None once the broker confirmed it.

    Otherwise aiormq's PublishError (returned: no queue takes it), DeliveryError (nacked), or a
    TimeoutError after `timeout` seconds or a ConnectionError if the channel closed: the outcome of
    these two is unknown. The channel must have confirms on, and `on_return_raises`.
    """
    if not isinstance(channel, aiormq.Channel):
        raise TypeError(f"not a channel of aiormq: {channel!r}")
    async with asyncio.timeout(timeout), channel.lock:
        # No suspension in here: the delivery tags must follow the order on the wire.
        batch = _Batch(channel, exchange, messages)
    await asyncio.wait(
        {batch.finished, channel.closing}, timeout=timeout, return_when=FIRST_COMPLETED
    )
    unknown: Exception = TimeoutError("no confirm came in time")
    if channel.closing.done():
        unknown = ConnectionError("the channel was closed")
    return batch.outcomes(unknown)


class _Confirmation:
    """What aiormq asks of a future that waits for a confirm; a hundred of them cost one future."""

    __slots__ = ("_batch", "error", "settled")

    def __init__(self, batch: "_Batch") -> None:
        self._batch = batch
        self.error: Exception | None = None
        self.settled = False

    def done(self) -> bool:
        return self.settled

    def cancelled(self) -> bool:
        return False

    def set_result(self, _frame: commands.Basic.Ack) -> None:
        self.settled = True
        self._batch.settled_one()

    def set_exception(self, error: Exception) -> None:
        self.error = error
        self.set_result(commands.Basic.Ack())


class _Batch:
    """Writes messages as one chunk; `finished` is done when each is confirmed or refused."""

    def __init__(self, channel: aiormq.Channel, exchange: str, messages: Sequence[Message]) -> None:
        frames = [frame for message in messages for frame in _frames(channel, exchange, message)]
        chunk = ChannelFrame.marshall(frames=frames, channel_number=channel.number)
        self.finished = asyncio.get_running_loop().create_future()
        self._left = len(messages)
        self._confirmations = [_Confirmation(self) for _ in messages]
        self._channel = channel
        self._ids = [message.id for message in messages]
        for message_id, confirmation in zip(self._ids, self._confirmations, strict=True):
            channel.delivery_tag += 1
            channel.confirmations[channel.delivery_tag] = cast("Future[object]", confirmation)
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
        channel.write_queue.put_nowait(chunk)

    def settled_one(self) -> None:
        self._left -= 1
        if self._left == 0 and not self.finished.done():
            self.finished.set_result(None)

    def outcomes(self, unknown: Exception) -> list[Exception | None]:
        for message_id in self._ids:
            self._channel.message_id_delivery_tag.pop(message_id, None)
        return [
            confirmation.error if confirmation.settled else unknown
            for confirmation in self._confirmations
        ]


def _frames(
    channel: aiormq.Channel, exchange: str, message: Message
) -> Iterator[commands.Basic.Publish | ContentHeader | ContentBody]:
    properties = commands.Basic.Properties(
        content_type=message.content_type,
        headers=message.headers,
        delivery_mode=PERSISTENT,
        message_id=message.id,
        message_type=message.routing_key,
    )
    yield commands.Basic.Publish(exchange=exchange, routing_key=message.routing_key, mandatory=True)
    yield ContentHeader(properties=properties, body_size=len(message.body))
    yield from channel._split_body(message.body)  # noqa: SLF001 - see the module's docstring
