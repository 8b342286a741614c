"""Takes messages from the queue in batches and acks each batch once it is handled."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage

from consumer_service.cloud_events import read_event
from consumer_service.dead_letters.publisher import publish_dead_letter
from consumer_service.domain import EventResult, OrderEvent, PoisonMessage
from proto.events import INVENTORY_QUEUE
from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext
from service_kit.pacing import batch_pause
from service_kit.rabbitmq.connection import open_channel
from service_kit.rabbitmq.consume import BatchConsumer

log = structlog.get_logger(__name__)

PREFETCHED_BATCHES = 2
"""While one is handled the next one arrives, so a backlog drains in full batches."""
DRAIN_SECONDS = 8.0
"""From `stop` to the end of a session; a batch that takes longer is delivered again."""
MAX_CONTEXT = 256
"""Characters of a request id or a traceparent; ours have 128 at most."""

Handle = Callable[[Sequence[OrderEvent]], Awaitable[Sequence[EventResult]]]


class Subscriber:
    """Passes events to `handle` in batches of at most `max_items`, one batch at a time.

    A message is acked only after its event was handled, or after it is in the dead-letter queue.
    If the connection is lost before, the broker delivers again: `handle` must be idempotent.
    """

    def __init__(self, handle: Handle, max_items: int, stop: asyncio.Event) -> None:
        self._handle = handle
        self._max_items = max_items
        self._stop = stop

    async def session(self, connection: AbstractConnection) -> None:
        """Consume until `stop` is set, then finish the current batch.

        Raises ConnectionError if the connection, the channel or the queue is lost before.
        """
        channel = await open_channel(connection)
        dead_letters = await open_channel(connection, publisher_confirms=True)
        prefetch = PREFETCHED_BATCHES * self._max_items
        consumer = await BatchConsumer.start(channel, INVENTORY_QUEUE, prefetch)
        log.info("consuming", queue=INVENTORY_QUEUE)
        batch_in_progress = asyncio.Lock()
        tasks = {
            asyncio.create_task(self._consume(consumer, dead_letters, batch_in_progress)),
            asyncio.create_task(consumer.fail_when_ended()),
            asyncio.create_task(self._stop.wait()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await _drain(consumer, batch_in_progress)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _consume(
        self,
        consumer: BatchConsumer,
        dead_letters: AbstractChannel,
        batch_in_progress: asyncio.Lock,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await consumer.next_batch(self._max_items)
            started = loop.time()
            async with batch_in_progress:
                await self._handle_batch(batch, dead_letters)
                await consumer.ack(batch)
            await asyncio.sleep(batch_pause(len(batch), self._max_items, loop.time() - started))

    async def _handle_batch(
        self, batch: Sequence[DeliveredMessage], dead_letters: AbstractChannel
    ) -> None:
        events: list[OrderEvent] = []
        readable: list[DeliveredMessage] = []
        poison: list[tuple[DeliveredMessage, PoisonMessage]] = []
        for message in batch:
            try:
                events.append(read_event(message.body, _context(message)))
                readable.append(message)
            except PoisonMessage as error:
                poison.append((message, error))
        if events:
            results = await self._handle(events)
            poison += [
                (message, result.poison)
                for message, result in zip(readable, results, strict=True)
                if result.poison is not None
            ]
            # One line for all: a line for each would cost more than handling it.
            handled = [(each.order_id, each.kind, each.context.request_id) for each in events]
            log.info("events handled", events=handled)
        for message, reason in poison:
            await publish_dead_letter(dead_letters, message, reason)


async def _drain(consumer: BatchConsumer, batch_in_progress: asyncio.Lock) -> None:
    """Take no more messages; return once the current batch is acked or has had its time."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await consumer.cancel()
            await batch_in_progress.acquire()
    except TimeoutError:
        log.warning("batch abandoned", seconds=DRAIN_SECONDS)


def _context(message: DeliveredMessage) -> CallContext:
    headers = message.header.properties.headers or {}
    return CallContext(_text(headers, REQUEST_ID), _text(headers, TRACEPARENT))


def _text(headers: Mapping[str, Any], name: str) -> str:
    """A header's value if gRPC metadata can carry it, cut so that a batch fits into one message."""
    text = str(headers.get(name, ""))[:MAX_CONTEXT]
    return text if text.isascii() and text.isprintable() else ""
