"""The transactional outbox (https://microservices.io/patterns/data/transactional-outbox.html)."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from order_service.events import OutboxEvent
from order_service.models import Caller
from service_kit.postgres.engine import autocommit

_LEADER_LOCK = 0x6F7574626F78  # any constant, the same in every order service
PRUNED_AT_ONCE = 5_000
LEADER_IDLE_SECONDS = 20.0
"""More than a leading relay ever waits for the producer, and pauses after a failure."""
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch has to fit into one gRPC message, or no event would ever be sent again."""

INSERT_EVENTS = """
    INSERT INTO outbox (id, order_id, type, body, request_id, traceparent)
    SELECT event.* FROM unnest(
        CAST(:event_ids AS uuid[]), CAST(:event_orders AS uuid[]), CAST(:event_types AS text[]),
        CAST(:bodies AS bytea[]), CAST(:request_ids AS text[]), CAST(:traceparents AS text[])
    ) AS event (id, order_id, type, body, request_id, traceparent)
"""
"""A part of every statement that changes orders; its parameters are `event_parameters`."""

_ADD = text(INSERT_EVENTS)
_END_IF_IDLE = text("SELECT set_config('idle_session_timeout', :limit, false)")
# By the absence of sent_at, not by "id greater than the last one": a transaction that commits
# late would otherwise be passed over for ever.
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


def event_parameters(events: Sequence[OutboxEvent]) -> dict[str, object]:
    """The parameters of INSERT_EVENTS for these events."""
    return {
        "event_ids": [event.id for event in events],
        "event_orders": [event.order_id for event in events],
        "event_types": [event.type for event in events],
        "bodies": [event.body for event in events],
        "request_ids": [event.caller.request_id for event in events],
        "traceparents": [event.caller.traceparent for event in events],
    }


async def add(connection: AsyncConnection, events: Sequence[OutboxEvent]) -> None:
    """Store events by themselves."""
    await connection.execute(_ADD, event_parameters(events))


@asynccontextmanager
async def leadership(engine: AsyncEngine) -> AsyncIterator[AsyncConnection | None]:
    """A connection that holds the relay's lock; None while another order service holds it.

    One relay at a time keeps the events of an order in order and sends none twice without need.
    The lock belongs to the connection: PostgreSQL frees it when the holder dies, and when the
    holder has asked nothing for LEADER_IDLE_SECONDS: a process that hangs keeps its connections.
    """
    async with autocommit(engine) as connection:
        held = await connection.scalar(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": _LEADER_LOCK}
        )
        if not held:
            yield None
            return
        try:
            await connection.execute(_END_IF_IDLE, {"limit": f"{LEADER_IDLE_SECONDS:g}s"})
            yield connection
        finally:
            # Closing the session frees the lock whatever state the connection is in.
            await connection.invalidate()


async def unsent(connection: AsyncConnection, limit: int) -> list[OutboxEvent]:
    """The oldest events that are due and not yet sent, as many as fit into one call."""
    events: list[OutboxEvent] = []
    left = MAX_BATCH_BYTES
    for row in await connection.execute(_UNSENT, {"limit": limit}):
        left -= len(row.body)
        if events and left < 0:
            break
        caller = Caller(row.request_id, row.traceparent)
        events.append(OutboxEvent(row.id, row.order_id, row.type, row.body, caller))
    return events


async def mark_sent(connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> None:
    """Note that the broker confirmed these events."""
    await connection.execute(_MARK_SENT, {"ids": ids})


async def postpone(connection: AsyncConnection, errors: Mapping[uuid.UUID, str]) -> None:
    """Let these events wait, longer after each failure: 1 s, 2 s, 4 s … at most 15 s."""
    parameters = {"ids": list(errors), "errors": list(errors.values())}
    await connection.execute(_POSTPONE, parameters)


async def prune(engine: AsyncEngine, older_than_seconds: float) -> int:
    """Delete events sent longer ago than this, a bounded number; returns how many."""
    async with autocommit(engine) as connection:
        result = await connection.execute(
            _PRUNE, {"seconds": older_than_seconds, "limit": PRUNED_AT_ONCE}
        )
        return int(result.rowcount)
