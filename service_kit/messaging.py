"""RabbitMQ: a topology as declared values, and a connection that is kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.connection import make_url
from aiormq.exceptions import (
    AMQPError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from service_kit.batch_consume import BulkConnection
from service_kit.errors import Unavailable

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
GET_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to connect; the last one repeats."""

BROKER_FAILURES = (AMQPError, OSError, TimeoutError, ChannelInvalidStateError)
"""What a broker that is away, or a connection that ends, raises."""


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: aio_pika.ExchangeType


@dataclass(frozen=True)
class Queue:
    """A durable queue, its arguments, and the (exchange, routing key) pairs bound to it.

    Without a `spare` one, which is on one node of a cluster only, the rest does its work.
    """

    name: str
    bindings: Sequence[tuple[str, str]]
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    spare: bool = False


@dataclass(frozen=True)
class Topology:
    """Exchanges and queues that belong together."""

    exchanges: Sequence[Exchange]
    queues: Sequence[Queue]


async def declare(channel: AbstractChannel, topology: Topology) -> None:
    """Declare everything; what exists with the same arguments stays as it is."""
    for exchange in topology.exchanges:
        await channel.declare_exchange(exchange.name, exchange.type, durable=True)
    for queue in topology.queues:
        try:
            await _declare_queue(channel, queue)
        except ChannelNotFoundEntity:
            # The node that holds it is down.
            if not queue.spare:
                raise
            log.warning("queue is away", queue=queue.name)
            await channel.reopen()
        except ChannelPreconditionFailed:
            # No outage, although it ends the session like one: somebody has to delete the queue.
            log.exception("queue exists with other arguments", queue=queue.name)
            raise


async def _declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    declared = await channel.declare_queue(
        queue.name, durable=True, arguments=dict(queue.arguments)
    )
    for exchange_name, routing_key in queue.bindings:
        await declared.bind(exchange_name, routing_key)


async def waiting(
    channel: AbstractChannel, queue: str, limit: int
) -> AsyncIterator[AbstractIncomingMessage]:
    """The messages that wait in `queue` now, oldest first, `limit` at most.

    Nobody else gets them until the channel is closed: then those not acked are back in the queue.
    """
    declared = await channel.declare_queue(queue, passive=True)
    for _ in range(min(limit, declared.declaration_result.message_count or 0)):
        message = await declared.get(fail=False, timeout=GET_SECONDS)
        if message is None:
            return
        yield message


async def watch(
    connection: AbstractConnection, *channels: AbstractChannel, seconds: float | None = None
) -> None:
    """Return after `seconds` (None: never); raises as soon as one of them is closed."""
    closings = {asyncio.ensure_future(channel.closed()) for channel in channels}
    closings.add(asyncio.ensure_future(connection.closed()))
    try:
        done, _ = await asyncio.wait(closings, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for closing in closings:
            closing.cancel()
    if done:
        raise ConnectionError("the connection or a channel was closed")


async def keep_connected(
    url: str, name: str, session: Callable[[BulkConnection], Awaitable[None]]
) -> None:
    """Run `session` on a connection, again on a new one whenever either fails, until it returns.

    `session` runs until its connection fails, which it shows by raising.
    """
    attempt = 0
    while True:
        try:
            connection = await _connect(url, name)
            log.info("broker connected", connection=name)
            async with connection:
                attempt = 0
                return await session(connection)
        except BROKER_FAILURES as error:
            log.warning("broker away", connection=name, error=repr(error))
        pause = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
        attempt += 1
        await asyncio.sleep(pause)


@asynccontextmanager
async def connected_once(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """A connection inside the block; Unavailable if there is none, or if it or a channel fails."""
    try:
        async with await _connect(url, name) as connection:
            yield connection
    except BROKER_FAILURES as error:
        raise Unavailable("BROKER_UNAVAILABLE", f"the broker failed: {error!r}") from error


async def _connect(url: str, name: str) -> BulkConnection:
    connection = BulkConnection(
        make_url(url, heartbeat=HEARTBEAT_SECONDS), client_properties={"connection_name": name}
    )
    try:
        await connection.connect(timeout=CONNECT_SECONDS)
    except BaseException:
        # `aio_pika.connect` leaves it to the finalizer, in whichever thread collects garbage.
        await connection.close()
        raise
    return connection
