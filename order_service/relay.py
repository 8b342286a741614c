"""The message relay: takes events from the outbox to the producer."""

import asyncio
from contextlib import suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from order_service import outbox
from order_service.clients import ProducerClient
from order_service.wakeups import Wakeups
from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
"""How soon an event is found whose wake-up was missed or happened in another process."""
PACE_SECONDS = 0.050
"""While busy, batches that are not full start no faster than this: fuller ones cost less."""
BUSY_ABOVE = 8
BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses while the producer or the database is away; the last one repeats."""


class Relay:
    """Hands unsent events to the producer in order, in batches of at most `max_items`."""

    def __init__(
        self, engine: AsyncEngine, producer: ProducerClient, wakeups: Wakeups, max_items: int
    ) -> None:
        self._engine = engine
        self._producer = producer
        self._wakeups = wakeups
        self._max_items = max_items
        self._failures = 0

    async def run(self) -> None:
        """Relay for ever, whenever this process holds the lead."""
        while True:
            try:
                async with outbox.leadership(self._engine) as connection:
                    if connection is not None:
                        log.info("relay leads")
                        await self._lead(connection)
            except ServiceError as error:
                await self._back_off(error)
            await asyncio.sleep(POLL_SECONDS)

    async def _lead(self, connection: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._wakeups.outbox.clear()
            sent = await self.send_batch(connection)
            if sent == self._max_items:
                continue  # more may be due
            if sent > BUSY_ABOVE:
                await asyncio.sleep(max(0.0, started + PACE_SECONDS - loop.time()))
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wakeups.outbox.wait()

    async def send_batch(self, connection: AsyncConnection) -> int:
        """Publish the oldest unsent events and mark those confirmed; returns how many there were.

        Nothing is marked that the broker has not confirmed; an event refused waits by itself. If
        none could be published it returns 0 after a pause, and they are due at once.
        """
        events = await outbox.unsent(connection, self._max_items)
        if not events:
            return 0
        try:
            answers = await self._producer.publish(events)
        except ServiceError as error:
            await self._back_off(error)
            self._wakeups.outbox.set()
            return 0
        self._failures = 0
        confirmed, refused = [], {}
        for event, failure in zip(events, answers, strict=True):
            if failure is None:
                confirmed.append(event.id)
            else:
                refused[event.id] = f"{failure.reason}: {failure.message}"
        if confirmed:
            await outbox.mark_sent(connection, confirmed)
        if refused:
            log.warning(
                "events not published", count=len(refused), error=next(iter(refused.values()))
            )
            await outbox.postpone(connection, refused)
        return len(events)

    async def _back_off(self, error: ServiceError) -> None:
        pause = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        log.warning("relay waits", reason=error.reason, error=error.message, seconds=pause)
        await asyncio.sleep(pause)
