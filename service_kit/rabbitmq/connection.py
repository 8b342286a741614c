"""Connections to RabbitMQ: kept open for a service, opened once for a command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url
from aiormq.exceptions import AMQPError, ChannelInvalidStateError

from service_kit.errors import Unavailable
from service_kit.pacing import retry_forever

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
RECONNECT_SECONDS = 0.2
"""Pause after a session that failed."""

BROKER_FAILURES = (AMQPError, OSError, TimeoutError, ChannelInvalidStateError)
"""What a broker that is unavailable, or a connection that ends, raises."""

Session = Callable[[AbstractConnection], Awaitable[None]]
"""Runs until its connection fails, which it shows by raising one of BROKER_FAILURES."""


async def keep_connected(url: str, name: str, session: Session) -> None:
    """Run `session` on a connection, and again on a new one whenever either fails.

    Returns once `session` does. Attempts to connect back off; after a session that failed the
    first one follows soon.
    """
    while True:
        async for attempt in retry_forever("connect to the broker", BROKER_FAILURES):
            with attempt:
                connection = await _connect(url, name)
        log.info("broker connected", connection=name)
        try:
            async with connection:
                return await _run_session(session, connection)
        except BROKER_FAILURES as error:
            log.warning("broker connection lost", connection=name, error=repr(error))
        await asyncio.sleep(RECONNECT_SECONDS)


async def _run_session(session: Session, connection: AbstractConnection) -> None:
    try:
        await session(connection)
    except asyncio.CancelledError as error:
        # aiormq cancels the calls that wait for a broker which is silent for too long. Without a
        # request to cancel this task that is a failure of the connection.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the broker did not respond") from error


@asynccontextmanager
async def open_connection(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """A connection inside the block; Unavailable if there is none, or if it or a channel fails."""
    try:
        async with await _connect(url, name) as connection:
            yield connection
    except BROKER_FAILURES as error:
        raise Unavailable("BROKER_UNAVAILABLE", f"the broker failed: {error!r}") from error


async def open_channel(
    connection: AbstractConnection, *, publisher_confirms: bool = False
) -> AbstractChannel:
    """A channel; with `publisher_confirms`, publishing raises if a message is returned or nacked.

    Raises one of BROKER_FAILURES if the connection is closed.
    """
    try:
        return await connection.channel(
            publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms
        )
    except RuntimeError as error:
        # aiormq's for a connection that the broker closed.
        raise ConnectionError(str(error)) from error


async def fail_when_closed(
    connection: AbstractConnection, *channels: AbstractChannel, seconds: float | None = None
) -> None:
    """Return after `seconds` (None: never); raise ConnectionError as soon as one is closed."""
    closings = {asyncio.ensure_future(channel.closed()) for channel in channels}
    closings.add(asyncio.ensure_future(connection.closed()))
    try:
        done, _ = await asyncio.wait(closings, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for closing in closings:
            closing.cancel()
    if done:
        raise ConnectionError("the connection or a channel was closed")


async def _connect(url: str, name: str) -> AbstractConnection:
    connection = aio_pika.Connection(
        make_url(url, heartbeat=HEARTBEAT_SECONDS), client_properties={"connection_name": name}
    )
    try:
        await connection.connect(timeout=CONNECT_SECONDS)
    except BaseException:
        # `aio_pika.connect` leaves it to the finalizer, in whichever thread collects garbage.
        await connection.close()
        raise
    return connection
