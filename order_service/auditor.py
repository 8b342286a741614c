"""Looks all the time for what is late, and compares the newest orders with inventory."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import DateTime, Uuid, bindparam, text

from order_service.audit import EQUALS_RESERVATION, IN_TIME, PUBLISHED, Books, compare
from service_kit.consistency import Check, Finding, FindViolations
from service_kit.postgres.engine import autocommit

_LATE = 100
_SAMPLE = 100
_SETTLING_SECONDS = 5.0
_BACKLOG = 10_000
"""Rows at most that are read to find out whether something is late."""

# What proves that orders get through again: a younger one was settled long enough ago. Without it
# an outage would look like lost orders.
_GOT_THROUGH = text(f"""
SELECT created_at FROM (
    SELECT id, created_at, status, updated_at FROM orders WHERE id < :id
    ORDER BY id DESC LIMIT {_BACKLOG}
) AS older WHERE status IN ('CONFIRMED', 'REJECTED') AND updated_at < :before
ORDER BY id DESC LIMIT 1
""").bindparams(  # noqa: S608
    bindparam("id", type_=Uuid), bindparam("before", type_=DateTime(timezone=True))
)
_LATE_ORDERS = text(f"""
SELECT id, status, updated_at FROM (
    SELECT id, status, updated_at FROM orders WHERE next_offer_at IS NOT NULL
    ORDER BY next_offer_at LIMIT {_BACKLOG}
) AS outstanding WHERE updated_at < :before ORDER BY id LIMIT {_LATE}
""").bindparams(bindparam("before", type_=DateTime(timezone=True)))  # noqa: S608
_LATE_EVENTS = text(f"""
SELECT id, type, order_id, coalesce(last_error, 'not tried') AS why FROM outbox
WHERE sent_at IS NULL AND id < (
    SELECT id FROM outbox WHERE sent_at < :before ORDER BY sent_at DESC LIMIT 1)
ORDER BY id LIMIT {_LATE}
""").bindparams(bindparam("before", type_=DateTime(timezone=True)))  # noqa: S608
_NEWEST = text(f"""
SELECT id FROM orders WHERE id >= :since AND id < :until ORDER BY id DESC LIMIT {_SAMPLE}
""").bindparams(bindparam("since", type_=Uuid), bindparam("until", type_=Uuid))  # noqa: S608


class Auditor:
    """Looks for what is late, and compares the newest orders with inventory, 100 at most a look.

    Late is what was overtaken: an order or event that is still under way although a younger one
    was done with `grace_seconds` ago. While nothing gets through, nothing is late.
    """

    def __init__(
        self, books: Books, grace_seconds: float, settling_seconds: float = _SETTLING_SECONDS
    ) -> None:
        self._books = books
        self._grace = dt.timedelta(seconds=grace_seconds)
        self._settling = dt.timedelta(seconds=settling_seconds)
        self._compared = _id_at(dt.datetime.now(dt.UTC) - self._settling)
        self._open: list[uuid.UUID] = []

    def looks(self) -> Mapping[Check, FindViolations]:
        """What to look for."""
        return {
            IN_TIME: self.late_orders,
            PUBLISHED: self.late_events,
            EQUALS_RESERVATION: self.unequal_orders,
        }

    async def late_orders(self) -> Sequence[Finding]:
        """Orders that got no answer although younger ones did."""
        before = dt.datetime.now(dt.UTC) - self._grace
        parameters: dict[str, object] = {"id": _id_at(before), "before": before}
        async with autocommit(self._books.engine) as connection:
            through = await connection.scalar(_GOT_THROUGH, parameters)
            if through is None:
                return []
            rows = await connection.execute(_LATE_ORDERS, {"before": through})
            return [
                Finding(f"order {row.id}", f"{row.status} without an answer since {row.updated_at}")
                for row in rows
            ]

    async def late_events(self) -> Sequence[Finding]:
        """Events that are not published although younger ones are."""
        before = dt.datetime.now(dt.UTC) - self._grace
        async with autocommit(self._books.engine) as connection:
            rows = await connection.execute(_LATE_EVENTS, {"before": before})
            return [
                Finding(f"event {row.id}", f"{row.type} of order {row.order_id}: {row.why}")
                for row in rows
            ]

    async def unequal_orders(self) -> Sequence[Finding]:
        """Of the orders since the last look the newest that disagree with inventory."""
        until = _id_at(dt.datetime.now(dt.UTC) - self._settling)
        async with autocommit(self._books.engine) as connection:
            parameters = {"since": self._compared, "until": until}
            newest = list(await connection.scalars(_NEWEST, parameters))
        looked_at = {*newest, *self._open}
        findings = await compare(self._books, looked_at) if looked_at else []
        self._compared = until
        self._open = [uuid.UUID(each.subject.removeprefix("order ")) for each in findings]
        return findings


def _id_at(moment: dt.datetime) -> uuid.UUID:
    """Below every UUIDv7 made from this moment on, above those made before."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)
