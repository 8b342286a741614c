"""Confirmed publishing of a whole batch with a single write.

aiormq's public `basic_publish` writes and drains each message separately, which costs four times as
much. This is the only file that touches aiormq's internals (delivery tags, confirmations, the
connection's write queue); it is written against aiormq 7.2, which is pinned, and a test compares
it with the public path.
"""

import asyncio
import struct
from asyncio import FIRST_COMPLETED, Future
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

import aiormq
from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.exceptions import PublishError
from pamqp import commands

_BASIC = 60
_FRAME = struct.Struct(">BHL")
_HEADER = struct.Struct(">HHQH")
_PERSISTENT = b"\x02"
_PROPERTIES = sum(1 << bit for bit in (15, 13, 12, 7, 5))
"""Content type, headers, delivery mode, message id and type are present, in this order."""


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message; its `id`, the message_id, differs from all others in flight."""

    id: str
    routing_key: str
    body: bytes
    content_type: str
    headers: Mapping[str, str]


class PublishOutcome(Enum):
    """What the broker did with a message."""

    CONFIRMED = auto()
    """Every queue that it was routed to has stored it."""
    UNROUTABLE = auto()
    """No queue takes it."""
    NACKED = auto()
    """A queue refused it."""
    UNCONFIRMED = auto()
    """Unknown: no confirm arrived in time, or before the channel closed."""


async def publish_batch(
    channel: AbstractChannel,
    exchange: str,
    messages: Sequence[Message],
    timeout: float,  # noqa: ASYNC109 - the confirms that came in time are kept
) -> list[PublishOutcome]:
    """Publish mandatory and persistent; one outcome per message, after `timeout` s at the latest.

    The channel needs publisher confirms and `on_return_raises`. Raises one of aiormq's errors if it
    is closed.
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
    return batch.outcomes()


def owes_confirms(channel: AbstractChannel) -> bool:
    """Whether the broker has yet to confirm messages of a batch that was given up.

    A broker that is blocked by an alarm, or hangs, reads nothing. What is written to it meanwhile
    stays in memory, and is published later although its publisher saw no confirm.
    """
    if not isinstance(channel, aiormq.Channel):
        raise TypeError(f"not a channel of aiormq: {channel!r}")
    pending = cast("Iterable[object]", channel.confirmations.values())
    return any(isinstance(each, _Confirmation) and each.given_up for each in pending)


class _Confirmation:
    """What aiormq needs of a future that awaits a confirm; those of a batch share one future."""

    __slots__ = ("_batch", "given_up", "outcome")

    def __init__(self, batch: "_Batch") -> None:
        self._batch = batch
        self.outcome = PublishOutcome.UNCONFIRMED
        self.given_up = False

    def done(self) -> bool:
        return self.outcome is not PublishOutcome.UNCONFIRMED

    def cancelled(self) -> bool:
        return False

    def set_result(self, _frame: commands.Basic.Ack) -> None:
        self._settle(PublishOutcome.CONFIRMED)

    def set_exception(self, error: Exception) -> None:
        unroutable = isinstance(error, PublishError)
        self._settle(PublishOutcome.UNROUTABLE if unroutable else PublishOutcome.NACKED)

    def _settle(self, outcome: PublishOutcome) -> None:
        self.outcome = outcome
        self._batch.settled_one()


class _Batch:
    """Writes messages as one chunk; `finished` is done when each has its outcome."""

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

    def outcomes(self) -> list[PublishOutcome]:
        """The outcomes so far: those that come later are given up."""
        for message_id in self._ids:
            self._channel.message_id_delivery_tag.pop(message_id, None)
        for confirmation in self._confirmations:
            confirmation.given_up = not confirmation.done()
        return [confirmation.outcome for confirmation in self._confirmations]


def _encode(message: Message, exchange: str, channel: int, max_body: int) -> Iterator[bytes]:
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
    for start in range(0, len(message.body), max_body):
        yield _frame(3, channel, message.body[start : start + max_body])


def _frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(frame_type, channel, len(payload)) + payload + b"\xce"


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data


def _long(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
