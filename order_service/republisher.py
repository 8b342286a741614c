"""Publishes a new event for each order that inventory has not answered in time.

This closes the loop end to end. The broker's confirm does not prove that inventory was asked: a
queue may be purged, a binding deleted by hand. The policy is here: the first new event comes
`ORDER_REPUBLISH_SECONDS` after the order was stored or cancelled, then at a fixed interval, then
at intervals that double (decision 0004).
"""

import asyncio
import datetime as dt

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from order_service import repository
from order_service.domain import Order
from order_service.outbox.events import order_event
from order_service.outbox.repository import add_events
from order_service.wakeups import Wakeups
from service_kit.context import CallContext, new_traceparent
from service_kit.errors import ServiceError
from service_kit.pacing import retry_forever
from service_kit.postgres.engine import transaction

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
"""How often overdue orders are looked for, at least."""
INTERVAL_FACTOR = 2
"""The fixed interval is this many times ORDER_REPUBLISH_SECONDS."""
FIXED_INTERVAL_ATTEMPTS = 12
"""Attempts at the fixed interval, about four minutes by default; then the interval doubles."""
MAX_INTERVAL_SECONDS = 3600.0
MAX_UNANSWERED = 1_000
"""Republished orders that may be without an answer; until one comes no further order is added.

Republishing must not flood the queue of a slow consumer. Orders beyond
FIXED_INTERVAL_ATTEMPTS do not count, or those that are never answered would block all others.
"""


class Republisher:
    """Republishes what is overdue; safe with several order services running."""

    def __init__(self, engine: AsyncEngine, wakeups: Wakeups, republish_seconds: float) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._republish_seconds = republish_seconds

    async def run(self) -> None:
        """Republish until cancelled."""
        while True:
            async for attempt in retry_forever("republisher", ServiceError):
                with attempt:
                    await self.republish_overdue()
            await asyncio.sleep(min(POLL_SECONDS, self._republish_seconds / 2))

    async def republish_overdue(self) -> int:
        """Write a new event for each order whose answer is overdue; returns their number.

        An order whose event is still in the outbox, unsent, is only rescheduled.
        """
        async with transaction(self._engine) as connection:
            overdue = await repository.defer_overdue(
                connection,
                interval_seconds=INTERVAL_FACTOR * self._republish_seconds,
                fixed_interval_attempts=FIXED_INTERVAL_ATTEMPTS,
                max_interval_seconds=MAX_INTERVAL_SECONDS,
                max_unanswered=MAX_UNANSWERED,
            )
            if not overdue:
                return 0
            now = dt.datetime.now(dt.UTC)
            orders = await repository.load_orders(connection, overdue, history=True)
            events = [order_event(each, _context(each), now) for each in orders.values()]
            await add_events(connection, events)
        self._wakeups.notify()
        log.info("orders republished", count=len(events))
        return len(events)


def _context(order: Order) -> CallContext:
    """The request that gave the order its status, in a new trace: its own ended long ago."""
    request_id = order.history[-1].request_id if order.history else ""
    return CallContext(request_id, new_traceparent())
