"""The message relay: takes events from the outbox to the producer."""

import asyncio
from contextlib import suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from order_service.clients import ProducerClient
from order_service.outbox import repository
from order_service.wakeups import Wakeups
from service_kit.errors import ServiceError
from service_kit.pacing import BUSY_BATCH_SIZE, batch_pause, retry_forever

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
"""How soon an event is found whose wake-up was missed or happened in another process."""


class Relay:
    """Hands unsent events to the producer in order, in batches of at most `max_items`.

    Of the relays of several order services one leads; the others try every POLL_SECONDS.
    """

    def __init__(
        self, engine: AsyncEngine, producer: ProducerClient, wakeups: Wakeups, max_items: int
    ) -> None:
        self._engine = engine
        self._producer = producer
        self._wakeups = wakeups
        self._max_items = max_items

    async def run(self) -> None:
        """Relay until cancelled, whenever this process is the leader."""
        while True:
            async for attempt in retry_forever("relay", ServiceError):
                with attempt:
                    await self._lead_if_elected()
            await asyncio.sleep(POLL_SECONDS)

    async def _lead_if_elected(self) -> None:
        """Return at once if another relay leads, else once leadership is lost.

        Raises the ServiceError of an unavailable database.
        """
        elected = False
        try:
            async with repository.leadership(self._engine) as connection:
                if connection is None:
                    return
                elected = True
                log.info("relay acquired leadership")
                await self._lead(connection)
        except ServiceError as error:
            if not elected:
                raise
            # Not counted as a failed attempt: it led, so the back-off starts over.
            log.warning("relay lost leadership", reason=error.reason, error=error.message)

    async def _lead(self, connection: AsyncConnection) -> None:
        """Send batch after batch.

        While the producer is unavailable, each attempt reads the outbox again. A failure of the
        database connection propagates: `leadership` turns it into a ServiceError.
        """
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._wakeups.outbox.clear()
            async for attempt in retry_forever("relay", ServiceError):
                with attempt:
                    size = await self.send_batch(connection)
            if size > BUSY_BATCH_SIZE or size == self._max_items:
                await asyncio.sleep(batch_pause(size, self._max_items, loop.time() - started))
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wakeups.outbox.wait()

    async def send_batch(self, connection: AsyncConnection) -> int:
        """Publish the oldest unsent events and mark those confirmed; returns their number.

        Nothing is marked that the broker has not confirmed; an event that it refused is postponed
        on its own. Raises the ServiceError of an unavailable producer.
        """
        events = await repository.unsent_events(connection, self._max_items)
        if not events:
            return 0
        results = await self._producer.publish(events)
        confirmed, refused = [], {}
        for event, failure in zip(events, results, strict=True):
            if failure is None:
                confirmed.append(event.id)
            else:
                refused[event.id] = f"{failure.reason}: {failure.message}"
        if confirmed:
            await repository.mark_sent(connection, confirmed)
        if refused:
            log.warning(
                "events not published", count=len(refused), error=next(iter(refused.values()))
            )
            await repository.postpone(connection, refused)
        return len(events)
