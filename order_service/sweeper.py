"""Offers again what got no answer, and prunes what was delivered long ago.

This closes the loop end to end: whatever happens to an event between the outbox and the answer of
inventory (a queue purged, a binding deleted by hand), its order is not forgotten.
"""

import asyncio
import datetime as dt

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from order_service import outbox, storage
from order_service.events import order_event
from order_service.models import Caller, Order
from order_service.wakeups import Wakeups
from service_kit.context import new_traceparent
from service_kit.errors import ServiceError
from service_kit.postgres.engine import transaction

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
AT_ONCE = 1_000
"""So many orders that were offered again may be without an answer (decision 0004)."""


class Sweeper:
    """Sweeps every second; safe with several order services running."""

    def __init__(
        self, engine: AsyncEngine, wakeups: Wakeups, reoffer_seconds: float, keep_seconds: float
    ) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._reoffer_seconds = reoffer_seconds
        self._keep_seconds = keep_seconds

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                offered = await self.offer_again()
                pruned = await self.prune()
                if offered or pruned:
                    log.info("swept", offered_again=offered, pruned=pruned)
            except ServiceError as error:
                log.warning("sweep failed", reason=error.reason, error=error.message)
            await asyncio.sleep(min(SWEEP_SECONDS, self._reoffer_seconds / 2))

    async def offer_again(self) -> int:
        """Write a new event for each order whose answer is overdue; returns how many.

        An order whose event still waits in the outbox only has its turn put off. No further order
        is offered again while AT_ONCE of those before have no answer.
        """
        async with transaction(self._engine) as connection:
            overdue = await storage.postpone_overdue(connection, self._reoffer_seconds, AT_ONCE)
            if not overdue:
                return 0
            now = dt.datetime.now(dt.UTC)
            found = await storage.load_orders(connection, overdue, history=True)
            events = [order_event(order, _caller(order), now) for order in found.values()]
            await outbox.add(connection, events)
        self._wakeups.announce(())
        return len(events)

    async def prune(self) -> int:
        """Delete every event that was delivered long enough ago; returns how many."""
        pruned = 0
        while True:
            portion = await outbox.prune(self._engine, self._keep_seconds)
            pruned += portion
            if portion < outbox.PRUNED_AT_ONCE:
                return pruned


def _caller(order: Order) -> Caller:
    """Who asked for the order's status, on a trace of its own: the first one is long over."""
    request_id = order.history[-1].request_id if order.history else ""
    return Caller(request_id, new_traceparent())
