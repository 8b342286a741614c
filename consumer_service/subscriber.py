"""Takes messages from the queue in batches and acks each batch once it is handled."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import aio_pika
import stamina
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from consumer_service.cloud_events import read_event
from consumer_service.models import OrderEvent, PoisonError
from proto.events import DEAD_LETTER_EXCHANGE, INVENTORY_QUEUE, REASON_HEADER
from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext
from service_kit.messaging import BROKER_FAILURES, watch

log = structlog.get_logger(__name__)

PACE_SECONDS = 0.020
"""While busy, batches start no faster than this: fuller batches cost less."""
BUSY_ABOVE = 8
PUBLISH_SECONDS = 5.0
DRAIN_SECONDS = 8.0

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

    async def session(self, connection: AbstractConnection) -> None:
        """Consume until `stop` is set, then finish the batch in hand; raises if the broker goes."""
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=max(self._max_items, 1))
        dead_letters = await connection.channel(publisher_confirms=True, on_return_raises=True)
        queue = await channel.get_queue(INVENTORY_QUEUE)
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        tag = await queue.consume(arrived.put)
        log.info("consuming", queue=INVENTORY_QUEUE)
        working = asyncio.create_task(self._work(arrived, dead_letters))
        watching = asyncio.create_task(watch(connection, channel, dead_letters))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set() and not watching.done():
                await queue.cancel(tag)
                await asyncio.wait({working, watching}, timeout=DRAIN_SECONDS)
            elif watching.done():
                await watching
        finally:
            for task in (working, watching, stopping):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _work(
        self, arrived: asyncio.Queue[AbstractIncomingMessage], dead_letters: AbstractChannel
    ) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            batch = [await arrived.get()]
            started = loop.time()
            while len(batch) < self._max_items and not arrived.empty():
                batch.append(arrived.get_nowait())
            await self._handle_batch(batch, dead_letters)
            if len(batch) > BUSY_ABOVE:
                await asyncio.sleep(max(0.0, started + PACE_SECONDS - loop.time()))

    async def _handle_batch(
        self, batch: Sequence[AbstractIncomingMessage], dead_letters: AbstractChannel
    ) -> None:
        events: list[OrderEvent] = []
        readable: list[AbstractIncomingMessage] = []
        poison: list[tuple[AbstractIncomingMessage, PoisonError]] = []
        for message in batch:
            try:
                events.append(read_event(message.body, _caller(message)))
                readable.append(message)
            except PoisonError as error:
                poison.append((message, error))
        if events:
            found = await self._handle(events)
            poison += [(readable[position], reason) for position, reason in found.items()]
        for message, reason in poison:
            await _dead_letter(dead_letters, message, reason)
        await batch[-1].ack(multiple=True)


def _caller(message: AbstractIncomingMessage) -> CallContext:
    headers = message.headers
    return CallContext(str(headers.get(REQUEST_ID, "")), str(headers.get(TRACEPARENT, "")))


async def _dead_letter(
    channel: AbstractChannel, message: AbstractIncomingMessage, error: PoisonError
) -> None:
    """Put a copy with its reason into the dead-letter queue; keeps trying until it is safe."""
    log.error("dead letter", message_id=message.message_id, reason=error.reason, error=str(error))
    exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE, ensure=False)
    copy = aio_pika.Message(
        message.body,
        message_id=message.message_id,
        type=message.type,
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={**message.headers, REASON_HEADER: str(error)[:1000]},
    )
    async for attempt in stamina.retry_context(
        on=BROKER_FAILURES, attempts=None, timeout=None, wait_max=2.0
    ):
        with attempt:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await exchange.publish(copy, message.routing_key or "", mandatory=True)
