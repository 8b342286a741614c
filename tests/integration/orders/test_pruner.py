"""The pruner on a real database: sent events are deleted after their time, others never."""

import asyncio
import datetime as dt
import uuid

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from order_service.outbox import repository
from order_service.outbox.pruner import Pruner
from order_service.tables import outbox
from service_kit.lifecycle import background_task
from service_kit.postgres.engine import open_engine
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually

RETENTION_SECONDS = 3600.0
NOW = dt.datetime.now(dt.UTC)
AGES = {"old": NOW - dt.timedelta(hours=2), "new": NOW - dt.timedelta(minutes=1), "unsent": None}
"""When events of these types were sent."""


async def add(engine: AsyncEngine, type_: str, count: int = 1) -> None:
    """Store events that were created a day ago and sent as AGES says."""
    rows = [
        {
            "id": uuid7(),
            "order_id": uuid.uuid4(),
            "type": type_,
            "body": b"{}",
            "sent_at": AGES[type_],
            "created_at": NOW - dt.timedelta(days=1),
        }
        for _ in range(count)
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(outbox), rows)


async def types(engine: AsyncEngine) -> set[str]:
    """The types of the events that are stored."""
    async with engine.connect() as connection:
        return set(await connection.scalars(select(outbox.c.type)))


async def test_pruning_deletes_only_what_was_sent_long_ago(engine: AsyncEngine) -> None:
    for type_ in AGES:
        await add(engine, type_)
    assert await Pruner(engine, RETENTION_SECONDS).prune() == 1
    assert await types(engine) == {"new", "unsent"}


async def test_more_than_a_batch_of_sent_events_is_pruned_in_one_run(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "PRUNE_BATCH_SIZE", 10)
    await add(engine, "old", 45)
    await add(engine, "unsent")
    assert await Pruner(engine, RETENTION_SECONDS).prune() == 45
    assert await types(engine) == {"unsent"}


async def test_the_running_pruner_prunes_by_itself_also_after_its_database_was_unavailable(
    migrated: str, engine: AsyncEngine
) -> None:
    async with proxied(migrated) as (proxy, url), open_engine(url, "pruner") as through:
        await proxy.cut()
        await add(engine, "old")
        await add(engine, "new")
        async with background_task(Pruner(through, RETENTION_SECONDS).run(), asyncio.Event()):
            await proxy.resume()
            await eventually(lambda: types(engine), lambda found: found == {"new"})
