"""The republisher on a real database: orders without an answer are republished, not too often."""

import asyncio
import datetime as dt
import json
import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from order_service import repository
from order_service import republisher as policy
from order_service.domain import (
    NewOrder,
    Order,
    OrderItem,
    OrderRequest,
    OrderStatus,
    RequestedItem,
)
from order_service.outbox.events import order_event
from order_service.republisher import Republisher
from order_service.settings import Settings
from order_service.tables import orders, outbox
from order_service.wakeups import Wakeups
from proto.events import ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_CREATED
from service_kit.context import CallContext
from service_kit.lifecycle import background_task
from service_kit.postgres.engine import open_engine, transaction
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually

REPUBLISH_SECONDS = 100.0
PAST = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
FUTURE = PAST + dt.timedelta(hours=2)


def republisher(engine: AsyncEngine, wakeups: Wakeups | None = None) -> Republisher:
    return Republisher(engine, wakeups or Wakeups(), REPUBLISH_SECONDS)


async def placed(
    engine: AsyncEngine, count: int = 1, due: dt.datetime = PAST, *, sent: bool = True
) -> list[uuid.UUID]:
    """Store PENDING orders whose first event was published, or not; returns their ids."""
    new = []
    for _ in range(count):
        request = OrderRequest(7, [RequestedItem(3, 2)])
        items = [OrderItem(3, "thing", 2, 250)]
        order = Order(uuid7(), 7, OrderStatus.PENDING, items, 500, PAST, PAST)
        new.append(NewOrder(order, request, order_event(order, CallContext("r", "t"), PAST)))
    async with transaction(engine) as connection:
        await repository.insert_orders(connection, new, due)
    if sent:
        await mark_all_sent(engine)
    return [each.order.id for each in new]


async def mark_all_sent(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(outbox).values(sent_at=func.now()))


async def make_due(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(orders).values(next_republish_at=func.now()))


async def update_order(engine: AsyncEngine, order_id: uuid.UUID, **values: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(orders).where(orders.c.id == order_id).values(**values))


async def unsent(engine: AsyncEngine) -> Sequence[Row[Any]]:
    """The events that are not yet published."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(outbox).where(outbox.c.sent_at.is_(None)))
        return rows.all()


async def pause(engine: AsyncEngine, order_id: uuid.UUID) -> float | None:
    """Seconds until the order is due again; None if it is not."""
    seconds = func.extract("epoch", orders.c.next_republish_at - func.now())
    async with engine.connect() as connection:
        found = await connection.scalar(select(seconds).where(orders.c.id == order_id))
    return None if found is None else round(float(found))


async def test_an_overdue_order_is_republished_with_a_new_event(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    wakeups = Wakeups()
    assert await republisher(engine, wakeups).republish_overdue() == 1
    (found,) = await unsent(engine)
    assert (found.order_id, found.type) == (order_id, ORDER_CREATED)
    body = json.loads(found.body)
    assert body["id"] == str(found.id)
    assert body["data"]["items"] == [
        {"product_id": 3, "name": "thing", "quantity": 2, "unit_price_cents": 250}
    ]
    assert wakeups.outbox.is_set()


async def test_a_republished_event_has_the_request_id_and_a_new_trace(
    engine: AsyncEngine,
) -> None:
    await placed(engine)
    await republisher(engine).republish_overdue()
    (found,) = await unsent(engine)
    assert found.request_id == "r"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", found.traceparent)


async def test_an_order_that_is_not_overdue_is_not_republished(engine: AsyncEngine) -> None:
    await placed(engine, due=FUTURE)
    assert await republisher(engine).republish_overdue() == 0
    assert not await unsent(engine)


async def test_the_interval_is_fixed_for_minutes_and_then_doubles_up_to_an_hour(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    pauses = []
    for _ in range(18):
        assert await republisher(engine).republish_overdue() == 1
        assert await republisher(engine).republish_overdue() == 0  # not before its time
        pauses.append(await pause(engine, order_id))
        await mark_all_sent(engine)
        await make_due(engine)
    assert pauses == [200] * 13 + [400, 800, 1600, 3200, 3600]


def test_an_event_that_is_lost_twice_is_republished_within_30_s_each_time() -> None:
    """That is the promise: the interval, the poll, and a second until inventory has the event."""
    settings = Settings(order_database_url="postgresql+asyncpg://unused/unused")
    interval = policy.INTERVAL_FACTOR * settings.order_republish_seconds
    assert interval + policy.POLL_SECONDS + 1 < 30
    assert settings.order_republish_seconds + interval * policy.FIXED_INTERVAL_ATTEMPTS > 180


async def test_an_order_whose_event_is_unsent_gets_no_second_one_and_a_later_turn(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine, sent=False)
    assert await republisher(engine).republish_overdue() == 0
    assert len(await unsent(engine)) == 1
    assert await pause(engine, order_id) == 2 * REPUBLISH_SECONDS


async def test_waiting_in_the_outbox_lengthens_no_interval(engine: AsyncEngine) -> None:
    (order_id,) = await placed(engine, sent=False)
    for _ in range(policy.FIXED_INTERVAL_ATTEMPTS + 5):
        assert await republisher(engine).republish_overdue() == 0
        await make_due(engine)
    await mark_all_sent(engine)
    assert await republisher(engine).republish_overdue() == 1
    assert await pause(engine, order_id) == 2 * REPUBLISH_SECONDS


async def test_a_cancelled_order_that_was_not_released_is_republished(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    await update_order(engine, order_id, status=OrderStatus.CANCELLED)
    assert await republisher(engine).republish_overdue() == 1
    (found,) = await unsent(engine)
    assert found.type == ORDER_CANCELLED
    assert json.loads(found.body)["data"]["items"]


async def test_a_settled_or_released_order_is_not_republished(engine: AsyncEngine) -> None:
    settled, released = await placed(engine, 2)
    async with transaction(engine) as connection:
        found = await repository.load_headers(connection, [settled])
        event = order_event(found[settled], CallContext(), PAST)
        await repository.settle_orders(connection, [_confirmed(found[settled])], [event], PAST)
    await update_order(engine, released, status=OrderStatus.CANCELLED)
    async with transaction(engine) as connection:
        await repository.release_orders(connection, [released])
    await mark_all_sent(engine)
    assert await republisher(engine).republish_overdue() == 0


def _confirmed(order: Order) -> Order:
    return Order(order.id, 7, OrderStatus.CONFIRMED, (), 500, PAST, PAST)


async def test_an_order_that_is_being_settled_is_not_republished(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    async with transaction(engine) as settling:
        found = await repository.load_headers(settling, [order_id])
        event = order_event(_confirmed(found[order_id]), CallContext(), PAST)
        await repository.settle_orders(settling, [_confirmed(found[order_id])], [event], PAST)
        assert await republisher(engine).republish_overdue() == 0
    assert [each.type for each in await unsent(engine)] == [ORDER_CONFIRMED]


async def test_concurrent_republishers_republish_each_order_once(engine: AsyncEngine) -> None:
    ids = await placed(engine, 300)
    counts = await asyncio.gather(*(republisher(engine).republish_overdue() for _ in range(4)))
    assert sum(counts) == 300
    assert sorted(each.order_id for each in await unsent(engine)) == sorted(ids)


async def defer(connection: AsyncConnection) -> list[uuid.UUID]:
    return await repository.defer_overdue(
        connection,
        interval_seconds=REPUBLISH_SECONDS,
        fixed_interval_attempts=12,
        max_interval_seconds=3600,
        max_unanswered=500,
    )


async def test_a_republisher_skips_orders_that_another_one_has_locked(engine: AsyncEngine) -> None:
    ids = await placed(engine, 3)
    async with transaction(engine) as other:
        assert set(await defer(other)) == set(ids)
        assert await republisher(engine).republish_overdue() == 0


async def test_a_long_queue_is_not_flooded_with_republished_events(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MAX_UNANSWERED", 50)
    ids = await placed(engine, 120)
    assert [await republisher(engine).republish_overdue() for _ in range(3)] == [50, 0, 0]
    first = {each.order_id for each in await unsent(engine)}
    await mark_all_sent(engine)
    await make_due(engine)
    assert [await republisher(engine).republish_overdue() for _ in range(3)] == [50, 0, 0]
    assert {each.order_id for each in await unsent(engine)} == first
    await note_answers(engine, first)
    assert [await republisher(engine).republish_overdue() for _ in range(3)] == [50, 0, 0]
    await note_answers(engine, {each.order_id for each in await unsent(engine)})
    assert [await republisher(engine).republish_overdue() for _ in range(3)] == [20, 0, 0]
    assert len({each.order_id for each in await unsent(engine)}) == len(ids)


async def test_orders_that_are_never_answered_do_not_block_the_others(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MAX_UNANSWERED", 5)
    for order_id in await placed(engine, 5):
        await update_order(
            engine,
            order_id,
            republish_count=policy.FIXED_INTERVAL_ATTEMPTS + 1,
            next_republish_at=FUTURE,
        )
    (lost,) = await placed(engine)
    assert await republisher(engine).republish_overdue() == 1
    assert [each.order_id for each in await unsent(engine)] == [lost]


async def note_answers(engine: AsyncEngine, ids: set[uuid.UUID]) -> None:
    async with engine.begin() as connection:
        settled = update(orders).where(orders.c.id.in_(ids)).values(next_republish_at=None)
        await connection.execute(settled)


async def test_the_running_republisher_republishes_by_itself(engine: AsyncEngine) -> None:
    (order_id,) = await placed(engine)
    async with background_task(republisher(engine).run(), asyncio.Event()):
        (found,) = await eventually(lambda: unsent(engine))
    assert (found.order_id, found.type) == (order_id, ORDER_CREATED)


async def test_a_republisher_whose_database_was_unavailable_continues(
    migrated: str, engine: AsyncEngine
) -> None:
    async with proxied(migrated) as (proxy, url), open_engine(url, "republisher") as through:
        await proxy.cut()
        eager = Republisher(through, Wakeups(), republish_seconds=0.2)
        async with background_task(eager.run(), asyncio.Event()):
            await placed(engine)
            await proxy.resume()
            await eventually(lambda: unsent(engine))
