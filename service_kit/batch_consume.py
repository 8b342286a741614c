"""Consuming everything that arrives together, without a task and nine awaits for each message.

aiormq reads a frame in three steps, hands it to its channel through a queue, and starts a task for
each message. Here deliveries are taken out of what arrives before aiormq reads it; all else reaches
aiormq as the broker sent it. aiormq lets a connection bring its own transport, so none of its inner
parts are touched.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import aio_pika
from aiormq import SSLContextProvider, TransportFactory
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp.exceptions import PAMQPException
from pamqp.frame import unmarshal
from yarl import URL

Arrive = Callable[[DeliveredMessage], None]
"""Takes a message as soon as it has arrived; must not raise."""

# Frames as AMQP 0-9-1, sections 2.3.5 and 4.2, has them.
_FRAME = struct.Struct(">BHL")
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_KINDS = {_METHOD, _HEADER, _BODY, _HEARTBEAT}
_DELIVER = b"\0\x3c\0\x3c"
_END = b"\xce"
_ALIVE = _FRAME.pack(_HEARTBEAT, 0, 0) + _END
_ALIVE_SECONDS = 1.0


class BulkConnection(aio_pika.Connection):
    """A connection on which `consume` takes all messages that arrive together."""

    def __init__(self, url: URL, **arguments: Any) -> None:
        super().__init__(url, **arguments)
        self._transport = _Transport()
        self.kwargs["transport_factory"] = self._transport

    async def consume(self, channel: AbstractChannel, queue: str, arrive: Arrive) -> str:
        """Consume `queue`; returns the consumer tag.

        Whatever is delivered on the number of `channel` goes to `arrive` until the connection ends.
        """

        async def arrive_later(message: DeliveredMessage) -> None:
            arrive(message)

        self._transport.reader.takers[channel.number] = Taker(channel, arrive)
        consumer = await channel.basic_consume(queue, arrive_later)
        return consumer.consumer_tag or ""


class _Transport(TransportFactory):
    """What aiormq's own transports do, with a reader of ours."""

    reader: "DeliveryReader"

    async def create(
        self, url: URL, **arguments: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider: SSLContextProvider = arguments.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        self.reader = DeliveryReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=tls, **arguments
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return self.reader, asyncio.StreamWriter(transport, protocol, self.reader, loop)


@dataclass(slots=True)
class Taker:
    """Puts the deliveries of one channel together, frame by frame."""

    channel: AbstractChannel
    arrive: Arrive
    method: Any = None
    header: Any = None
    bodies: list[bytes] = field(default_factory=list)
    missing: int = 0

    def take(self, kind: int, frame: bytes) -> bool:
        """Whether the frame belongs to a delivery.

        Raises PAMQPException if it is unreadable or out of place, RecursionError if it is too deep.
        """
        if self.method is None:
            if kind != _METHOD or not frame.startswith(_DELIVER, _FRAME.size):
                return False
            _, _, self.method = unmarshal(frame)
            self.header, self.bodies = None, []
            return True
        if kind != (_HEADER if self.header is None else _BODY) or not frame.endswith(_END):
            raise PAMQPException(f"a frame of kind {kind} in the middle of a message")
        if kind == _HEADER:
            _, _, self.header = unmarshal(frame)
            self.missing = self.header.body_size
        else:
            self.bodies.append(frame[_FRAME.size : -1])
            self.missing -= len(self.bodies[-1])
        if self.missing <= 0:
            body = b"".join(self.bodies)
            self.arrive(DeliveredMessage(self.method, self.header, body, self.channel))
            self.method = None
        return True


class DeliveryReader(asyncio.StreamReader):
    """Keeps the frames of deliveries back, for those who take them by channel number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.takers: dict[int, Taker] = {}
        self._clock = loop.time
        self._rest = b""
        self._readable = True
        self._alive_at = 0.0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take the deliveries out of whole frames; the rest waits for what arrives next."""
        data = self._rest + bytes(data)
        passed: list[bytes] = []
        at = kept = 0
        while self._readable and at + _FRAME.size < len(data):
            kind, number, size = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + size + 1
            if kind not in _KINDS:
                self._readable = False
            elif end > len(data):
                break
            elif number in self.takers and self._takes(number, kind, data[at:end]):
                passed.append(data[kept:at])
                at = kept = end
            else:
                at = end
        if not self._readable:
            # Not for us to judge: aiormq knows what to do about it.
            at = len(data)
        elif kept and self._clock() - self._alive_at > _ALIVE_SECONDS:
            # A broker that delivers sends no heartbeats, and aiormq would take it for dead.
            self._alive_at = self._clock()
            passed.append(_ALIVE)
        passed.append(data[kept:at])
        self._rest = data[at:]
        super().feed_data(b"".join(passed))

    def feed_eof(self) -> None:
        """The broker is gone; aiormq sees whether that was in the middle of a frame."""
        rest, self._rest = self._rest, b""
        if rest:  # asyncio tells of the end twice
            super().feed_data(rest)
        super().feed_eof()

    def _takes(self, number: int, kind: int, frame: bytes) -> bool:
        try:
            return kind != _HEARTBEAT and self.takers[number].take(kind, frame)
        except (PAMQPException, RecursionError) as error:
            # What was taken of the message is lost to aiormq, so it could not tell.
            self._readable = False
            self.set_exception(InvalidFrameError(str(error)))
            return False
