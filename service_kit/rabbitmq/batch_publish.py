"""Confirmed publishing of a whole batch with a single write.

aiormq's public `basic_publish` writes and drains each message by itself, which costs four times as
much. This is the only file that touches aiormq's inner parts (delivery tags, confirmations, the
connection's write queue); it is written against aiormq 7.2, which is pinned, and a test holds it
against the public path.
"""

import asyncio
import struct
from asyncio import FIRST_COMPLETED, Future
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import aiormq
from aiormq.abc import AbstractChannel, ChannelFrame
from pamqp import commands

_BASIC = 60
_FRAME = struct.Struct(">BHL")
_HEADER = struct.Struct(">HHQH")
_PERSISTENT = b"\x02"
_PROPERTIES = sum(1 << bit for bit in (15, 13, 12, 7, 5))
"""Content type, headers, delivery mode, message id and type are present, in this order."""


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message; `id` is its message_id and differs from all others in flight."""

    id: str
    routing_key: str
    body: bytes
    content_type: str
    headers: Mapping[str, str]


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
    if not messages:
        return []
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


def owes_confirms(channel: AbstractChannel) -> bool:
    """Whether the broker has yet to answer for messages of a batch that was given up.

    A broker that is blocked by an alarm reads nothing, and one that hangs neither: what is written
    then lies in memory, and is published later although its publisher was told of no confirm.
    """
    if not isinstance(channel, aiormq.Channel):
        raise TypeError(f"not a channel of aiormq: {channel!r}")
    waiting = cast("Iterable[object]", channel.confirmations.values())
    return any(isinstance(each, _Confirmation) and each.given_up for each in waiting)


class _Confirmation:
    """What aiormq asks of a future that waits for a confirm; a hundred of them cost one future."""

    __slots__ = ("_batch", "error", "given_up", "settled")

    def __init__(self, batch: "_Batch") -> None:
        self._batch = batch
        self.error: Exception | None = None
        self.settled = False
        self.given_up = False

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
        chunk = b"".join(
            frame
            for message in messages
            for frame in _encode(message, exchange, channel.number, channel.max_content_size)
        )
        self.finished = asyncio.get_running_loop().create_future()
        self._left = len(messages)
        self._confirmations = [_Confirmation(self) for _ in messages]
        self._channel = channel
        self._ids = [message.id for message in messages]
        for message_id, confirmation in zip(self._ids, self._confirmations, strict=True):
            channel.delivery_tag += 1
            channel.confirmations[channel.delivery_tag] = cast("Future[object]", confirmation)
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
        channel.write_queue.put_nowait(ChannelFrame(payload=chunk, should_close=False))

    def settled_one(self) -> None:
        self._left -= 1
        if self._left == 0 and not self.finished.done():
            self.finished.set_result(None)

    def outcomes(self, unknown: Exception) -> list[Exception | None]:
        for message_id in self._ids:
            self._channel.message_id_delivery_tag.pop(message_id, None)
        for confirmation in self._confirmations:
            confirmation.given_up = not confirmation.settled
        return [
            confirmation.error if confirmation.settled else unknown
            for confirmation in self._confirmations
        ]


def _encode(message: Message, exchange: str, channel: int, largest_body: int) -> Iterator[bytes]:
    """The method, header and body frames of one publish (AMQP 0-9-1, sections 2.3.5 and 4.2).

    Written out because pamqp's general encoder takes ten times as long.
    """
    key = _short(message.routing_key)
    method = b"\0\x3c\0\x28\0\0" + _short(exchange) + key + b"\x01"
    table = b"".join(
        _short(name) + b"S" + _long(value.encode()) for name, value in message.headers.items()
    )
    properties = (
        _short(message.content_type)
        + _long(table)
        + _PERSISTENT
        + _short(message.id)
        + key  # the type
    )
    header = _HEADER.pack(_BASIC, 0, len(message.body), _PROPERTIES) + properties
    yield _frame(1, channel, method)
    yield _frame(2, channel, header)
    for start in range(0, len(message.body), largest_body):
        yield _frame(3, channel, message.body[start : start + largest_body])


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data


def _long(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
