"""SQL of the outbox.

Events are inserted here on their own, and in `order_service.repository` together with the change
of the order that they report.
"""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from order_service.domain import OutboxEvent
from order_service.tables import outbox
from service_kit.context import CallContext
from service_kit.postgres.engine import autocommit

PRUNE_BATCH_SIZE = 5_000
LEADER_IDLE_SECONDS = 20.0
"""Longer than a leading relay ever waits for the producer and pauses after a failure."""
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch must fit into one gRPC message, or no event would ever be sent again."""

_LEADER_LOCK = 0x6F7574626F78  # any constant, the same in every order service

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_END_IF_IDLE = text("SELECT set_config('idle_session_timeout', :limit, false)")

# By the absence of sent_at, not by "id greater than the last one", which would never find the
# events of a transaction that commits late.
_UNSENT = text("""
SELECT id, order_id, type, body, request_id, traceparent FROM outbox
WHERE sent_at IS NULL AND (next_attempt_at IS NULL OR next_attempt_at <= now())
ORDER BY id LIMIT :limit
""")

_MARK_SENT = text("UPDATE outbox SET sent_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))")

_POSTPONE = text("""
UPDATE outbox SET attempts = attempts + 1, last_error = failed.error,
    next_attempt_at = now() + least(interval '1 second' * power(2, attempts), interval '15 seconds')
FROM unnest(CAST(:ids AS uuid[]), CAST(:errors AS text[])) AS failed (id, error)
WHERE outbox.id = failed.id
""")

# ARRAY: the planner would join with the whole outbox otherwise.
_PRUNE = text("""
DELETE FROM outbox WHERE id = ANY(ARRAY(
    SELECT id FROM outbox
    WHERE sent_at < now() - make_interval(secs => CAST(:seconds AS double precision))
    ORDER BY sent_at LIMIT :limit))
""")


class OutboxEntry(NamedTuple):
    """How far an event has come; `attempts` are those that failed."""

    id: uuid.UUID
    type: str
    request_id: str
    created_at: dt.datetime
    sent_at: dt.datetime | None
    attempts: int
    next_attempt_at: dt.datetime | None
    last_error: str | None


async def add_events(connection: AsyncConnection, events: Sequence[OutboxEvent]) -> None:
    """Store events that report no new change of their orders."""
    await connection.execute(
        insert(outbox),
        [
            {
                "id": event.id,
                "order_id": event.order_id,
                "type": event.type,
                "body": event.body,
                "request_id": event.context.request_id,
                "traceparent": event.context.traceparent,
            }
            for event in events
        ],
    )


async def entries_of(connection: AsyncConnection, order_id: uuid.UUID) -> list[OutboxEntry]:
    """The events of an order that the outbox still has, oldest first."""
    columns = (outbox.c[name] for name in OutboxEntry._fields)
    found = select(*columns).where(outbox.c.order_id == order_id).order_by(outbox.c.id)
    return [OutboxEntry(*row) for row in await connection.execute(found)]


@asynccontextmanager
async def leadership(engine: AsyncEngine) -> AsyncIterator[AsyncConnection | None]:
    """A connection that holds the relay's lock; None while another order service holds it.

    One relay at a time keeps the events of an order in order and sends none twice without need.
    The lock belongs to the connection: PostgreSQL frees it when the holder dies, and when the
    holder has sent no statement for LEADER_IDLE_SECONDS, because a process that hangs keeps its
    connections.
    """
    async with autocommit(engine) as connection:
        if not await connection.scalar(_TRY_LOCK, {"key": _LEADER_LOCK}):
            yield None
            return
        try:
            await connection.execute(_END_IF_IDLE, {"limit": f"{LEADER_IDLE_SECONDS:g}s"})
            yield connection
        finally:
            # Closing the session frees the lock whatever state the connection is in.
            await connection.invalidate()


async def unsent_events(connection: AsyncConnection, limit: int) -> list[OutboxEvent]:
    """The oldest events that are due and not yet sent, as many as fit into one call."""
    events: list[OutboxEvent] = []
    left = MAX_BATCH_BYTES
    for row in await connection.execute(_UNSENT, {"limit": limit}):
        left -= len(row.body)
        if events and left < 0:
            break
        context = CallContext(row.request_id, row.traceparent)
        events.append(OutboxEvent(row.id, row.order_id, row.type, row.body, context))
    return events


async def mark_sent(connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> None:
    """Mark these events as sent: the broker has confirmed them."""
    await connection.execute(_MARK_SENT, {"ids": ids})


async def postpone(connection: AsyncConnection, errors: Mapping[uuid.UUID, str]) -> None:
    """Record why these events failed; each is due again after 1 s, 2 s, 4 s … at most 15 s."""
    parameters = {"ids": list(errors), "errors": list(errors.values())}
    await connection.execute(_POSTPONE, parameters)


async def prune(engine: AsyncEngine, older_than_seconds: float) -> int:
    """Delete at most PRUNE_BATCH_SIZE events sent longer ago than this; returns how many."""
    async with autocommit(engine) as connection:
        parameters = {"seconds": older_than_seconds, "limit": PRUNE_BATCH_SIZE}
        result = await connection.execute(_PRUNE, parameters)
        return int(result.rowcount)
