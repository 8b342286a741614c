"""Takes messages from the queue in batches and acks each batch once it is handled."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage

from consumer_service.cloud_events import read_event
from consumer_service.models import OrderEvent, PoisonError
from proto.dead_letters import REASON_HEADER, TIME_HEADER
from proto.events import DEAD_LETTER_EXCHANGE, INVENTORY_QUEUE
from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext
from service_kit.pacing import batch_pause, retry_forever
from service_kit.rabbitmq.connection import BROKER_FAILURES, fail_when_closed
from service_kit.rabbitmq.consume import BatchConsumer

log = structlog.get_logger(__name__)

PREFETCHED_BATCHES = 2
"""While one is handled the next one arrives, so a backlog is worked off in full batches."""
PUBLISH_SECONDS = 5.0
DRAIN_SECONDS = 8.0
MAX_CONTEXT = 256
"""Characters of a request id or a traceparent; ours have 128 at most."""

Handle = Callable[[Sequence[OrderEvent]], Awaitable[Mapping[int, PoisonError]]]


class Subscriber:
    """Hands events to `handle` in batches of at most `max_items`, one batch at a time.

    A message is acked only after its event was handled, or after it lies in the dead-letter
    queue. If the connection is lost meanwhile, the broker delivers again and `handle` has to bear
    that.
    """

    def __init__(self, handle: Handle, max_items: int, stop: asyncio.Event) -> None:
        self._handle = handle
        self._max_items = max_items
        self._stop = stop
        self._batch_in_progress = asyncio.Lock()

    async def session(self, connection: AbstractConnection) -> None:
        """Consume until `stop` is set, then finish the current batch; raises if the broker goes."""
        channel = await connection.channel()
        dead_letters = await connection.channel(publisher_confirms=True, on_return_raises=True)
        prefetch = PREFETCHED_BATCHES * self._max_items
        consumer = await BatchConsumer.start(channel, INVENTORY_QUEUE, prefetch)
        log.info("consuming", queue=INVENTORY_QUEUE)
        tasks = {
            asyncio.create_task(self._work(consumer, dead_letters)),
            asyncio.create_task(fail_when_closed(connection, channel)),
            asyncio.create_task(consumer.fail_when_cancelled()),
            asyncio.create_task(self._stop.wait()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await consumer.cancel()
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._batch_in_progress.acquire()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._batch_in_progress = asyncio.Lock()

    async def _work(self, consumer: BatchConsumer, dead_letters: AbstractChannel) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await consumer.next_batch(self._max_items)
            started = loop.time()
            async with self._batch_in_progress:
                await self._handle_batch(batch, dead_letters)
                await consumer.ack(batch)
            await asyncio.sleep(batch_pause(len(batch), self._max_items, loop.time() - started))

    async def _handle_batch(
        self, batch: Sequence[DeliveredMessage], dead_letters: AbstractChannel
    ) -> None:
        events: list[OrderEvent] = []
        readable: list[DeliveredMessage] = []
        poison: list[tuple[DeliveredMessage, PoisonError]] = []
        for message in batch:
            try:
                events.append(read_event(message.body, _caller(message)))
                readable.append(message)
            except PoisonError as error:
                poison.append((message, error))
        if events:
            found = await self._handle(events)
            poison += [(readable[position], reason) for position, reason in found.items()]
            # One line for all: a line for each would cost more than handling it.
            handled = [(e.order_id, e.kind, e.caller.request_id) for e in events]
            log.info("events handled", events=handled)
        for message, reason in poison:
            await _dead_letter(dead_letters, message, reason)


def _caller(message: DeliveredMessage) -> CallContext:
    headers = message.header.properties.headers or {}
    return CallContext(_said(headers, REQUEST_ID), _said(headers, TRACEPARENT))


def _said(headers: Mapping[str, Any], name: str) -> str:
    """A header as gRPC can carry it, and those of a whole batch in one message."""
    text = str(headers.get(name, ""))[:MAX_CONTEXT]
    return text if text.isascii() and text.isprintable() else ""


async def _dead_letter(
    channel: AbstractChannel, message: DeliveredMessage, error: PoisonError
) -> None:
    """Put a copy with its reason into the dead-letter queue; keeps trying until it is safe."""
    properties = message.header.properties
    log.error("dead letter", message_id=properties.message_id, reason=str(error))
    exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE, ensure=False)
    copy = aio_pika.Message(
        message.body,
        message_id=properties.message_id,
        type=properties.message_type,
        content_type=properties.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={
            **_writable(properties.headers or {}),
            REASON_HEADER: str(error)[:1000],
            TIME_HEADER: dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        },
    )
    async for attempt in retry_forever("publish a dead letter", BROKER_FAILURES):
        with attempt:
            async with asyncio.timeout(PUBLISH_SECONDS):
                if attempt.num > 1:
                    # The broker refuses on a channel that met a full queue even when it has room
                    # again, if the room came by a raised limit.
                    await channel.close()
                    await channel.reopen()
                await exchange.publish(copy, message.routing_key or "", mandatory=True)


def _writable(value: Any) -> Any:
    """Header values as they can be written again: text that is no UTF-8 was read as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {key: _writable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_writable(each) for each in value]
    return value
