"""Takes messages from the queue in batches and acks each batch once it is handled."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aio_pika
import stamina
import structlog
from aio_pika.abc import AbstractChannel
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.abc import DeliveredMessage

from consumer_service.cloud_events import read_event
from consumer_service.models import OrderEvent, PoisonError
from proto.events import DEAD_LETTER_EXCHANGE, INVENTORY_QUEUE, REASON_HEADER, TIME_HEADER
from service_kit.batch_consume import BulkConnection
from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext
from service_kit.messaging import BROKER_FAILURES, watch

log = structlog.get_logger(__name__)

PACE_SECONDS = 0.050
"""While busy, batches that are not full start no faster than this: fuller ones cost less."""
BUSY_ABOVE = 8
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
        self._batch_in_hand = asyncio.Lock()

    async def session(self, connection: BulkConnection) -> None:
        """Consume until `stop` is set, then finish the batch in hand; raises if the broker goes."""
        opened = await connection.channel()
        await opened.set_qos(prefetch_count=PREFETCHED_BATCHES * self._max_items)
        dead_letters = await connection.channel(publisher_confirms=True, on_return_raises=True)
        channel = await opened.get_underlay_channel()
        arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        cancelled = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
        consumer_tag = await connection.consume(channel, INVENTORY_QUEUE, arrived.put_nowait)
        log.info("consuming", queue=INVENTORY_QUEUE)
        ending = {
            asyncio.create_task(self._work(arrived, channel, dead_letters)),
            asyncio.create_task(watch(connection, opened)),
            asyncio.create_task(_raise_when(cancelled)),
            asyncio.create_task(self._stop.wait()),
        }
        try:
            done, _ = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await channel.basic_cancel(consumer_tag)
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._batch_in_hand.acquire()
        finally:
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._batch_in_hand = asyncio.Lock()

    async def _work(
        self,
        arrived: asyncio.Queue[DeliveredMessage],
        channel: UnderlayChannel,
        dead_letters: AbstractChannel,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await arrived.get()]
            started = loop.time()
            while len(batch) < self._max_items and not arrived.empty():
                batch.append(arrived.get_nowait())
            async with self._batch_in_hand:
                await self._handle_batch(batch, dead_letters)
                await channel.basic_ack(batch[-1].delivery_tag or 0, multiple=True)
            if BUSY_ABOVE < len(batch) < self._max_items:
                await asyncio.sleep(max(0.0, started + PACE_SECONDS - loop.time()))

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


async def _raise_when(cancelled: asyncio.Event) -> None:
    await cancelled.wait()
    raise ConnectionError("the broker cancelled the consumer: was its queue deleted?")


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
    async for attempt in stamina.retry_context(
        on=BROKER_FAILURES, attempts=None, timeout=None, wait_max=2.0
    ):
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
