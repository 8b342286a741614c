"""A relay on a real database, and what it has published."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from stamina.instrumentation import RetryDetails
from uuid_utils.compat import uuid7

from order_service.clients import ProducerClient, open_producer_channel
from order_service.domain import OutboxEvent
from order_service.outbox import repository
from order_service.outbox.relay import Relay
from order_service.tables import outbox
from order_service.wakeups import Wakeups
from proto.events import AUDIT_QUEUE, ORDER_CONFIRMED
from service_kit.context import CallContext
from service_kit.lifecycle import background_task
from service_kit.postgres.engine import transaction
from tests.integration.environment import envelope, peek
from tests.support.infrastructure import Broker
from tests.support.waiting import eventually

LEADER = text("""
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
""")


@asynccontextmanager
async def running_relay(
    engine: AsyncEngine, producer: str, wakeups: Wakeups | None = None, max_items: int = 256
) -> AsyncIterator[Relay]:
    """A relay that runs inside the block, as in the order service."""
    async with open_producer_channel(producer) as channel:
        runner = Relay(engine, ProducerClient(channel), wakeups or Wakeups(), max_items)
        async with background_task(runner.run(), asyncio.Event()):
            yield runner


def new_events(count: int, type_: str = ORDER_CONFIRMED, body: bytes = b"") -> list[OutboxEvent]:
    order_id = uuid.uuid4()
    raw = body or json.dumps(envelope(type_, order_id)).encode()
    return [OutboxEvent(uuid7(), order_id, type_, raw, CallContext("r", "")) for _ in range(count)]


async def add(engine: AsyncEngine, events: Sequence[OutboxEvent]) -> list[str]:
    """Store events; returns their ids."""
    async with transaction(engine) as connection:
        await repository.add_events(connection, events)
    return [str(event.id) for event in events]


async def unsent(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        found = select(func.count()).select_from(outbox).where(outbox.c.sent_at.is_(None))
        return int(await connection.scalar(found) or 0)


async def all_sent(engine: AsyncEngine) -> None:
    await eventually(lambda: unsent(engine), lambda count: count == 0)


async def leaders(engine: AsyncEngine) -> list[int]:
    """The database sessions that hold the relay's lock."""
    async with engine.connect() as connection:
        return list(await connection.scalars(LEADER))


async def published(broker: Broker) -> list[str]:
    """The ids of the events published, in their order."""
    return [each["properties"]["message_id"] for each in await peek(broker, AUDIT_QUEUE)]


async def terminate(engine: AsyncEngine, pid: int) -> None:
    """End a database session, as an operator may."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


async def retried(retries: Sequence[RetryDetails], count: int) -> None:
    """Return once this many attempts have failed."""

    async def failed() -> int:
        return len(retries)

    await eventually(failed, lambda found: found >= count)
