"""The continuous checks: cheap, because they read only what is new or unfinished."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.consistency import repository
from order_service.consistency.checks import (
    EVENTS_PUBLISHED,
    ORDERS_EQUAL_RESERVATIONS,
    ORDERS_SETTLED,
    compare,
)
from order_service.consistency.clients import ReservationClient
from service_kit.consistency import Check, Finding, FindViolations
from service_kit.postgres.engine import autocommit

_MAX_FINDINGS = 100
_MAX_COMPARED = 100
"""Orders in one comparison, in addition to those that disagreed in the last one."""
_SETTLING_SECONDS = 5.0
"""Orders younger than this are not yet compared."""
_MAX_BACKLOG = 10_000
"""Rows at most that are read to find out whether something is late."""


class ContinuousChecks:
    """Finds what is late, and compares the newest orders with inventory.

    An order or event is late if it is unfinished although a younger one was finished
    `grace_seconds` ago. So an outage alone makes nothing late.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        inventory: ReservationClient,
        grace_seconds: float,
        settling_seconds: float = _SETTLING_SECONDS,
    ) -> None:
        self._engine = engine
        self._inventory = inventory
        self._grace = dt.timedelta(seconds=grace_seconds)
        self._settling = dt.timedelta(seconds=settling_seconds)
        self._compared_until = _id_at(dt.datetime.now(dt.UTC) - self._settling)
        self._disagreeing: list[uuid.UUID] = []

    def checks(self) -> Mapping[Check, FindViolations]:
        """The checks, for a ConsistencyMonitor."""
        return {
            ORDERS_SETTLED: self.late_orders,
            EVENTS_PUBLISHED: self.late_events,
            ORDERS_EQUAL_RESERVATIONS: self.unequal_orders,
        }

    async def late_orders(self) -> Sequence[Finding]:
        """Orders that inventory has not answered although it settled younger ones."""
        before = dt.datetime.now(dt.UTC) - self._grace
        async with autocommit(self._engine) as connection:
            return await repository.overtaken_orders(
                connection, before, _id_at(before), backlog=_MAX_BACKLOG, limit=_MAX_FINDINGS
            )

    async def late_events(self) -> Sequence[Finding]:
        """Events that are not published although younger ones are."""
        before = dt.datetime.now(dt.UTC) - self._grace
        async with autocommit(self._engine) as connection:
            return await repository.overtaken_events(connection, before, _MAX_FINDINGS)

    async def unequal_orders(self) -> Sequence[Finding]:
        """The newest orders since the last run that disagree with inventory.

        Those that disagreed then are compared again.
        """
        until = _id_at(dt.datetime.now(dt.UTC) - self._settling)
        async with autocommit(self._engine) as connection:
            newest = await repository.newest_ids(
                connection, self._compared_until, until, _MAX_COMPARED
            )
        ids = {*newest, *self._disagreeing}
        findings = await compare(self._engine, self._inventory, ids) if ids else []
        self._compared_until = until
        self._disagreeing = [
            uuid.UUID(finding.subject.removeprefix("order ")) for finding in findings
        ]
        return findings


def _id_at(moment: dt.datetime) -> uuid.UUID:
    """Below every UUIDv7 made from this moment on, above those made before."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)
