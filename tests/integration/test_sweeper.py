"""The sweeper on a real database: what got no answer is offered again, and not too often."""

import asyncio
import datetime as dt
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

import order_service.__main__ as order_main
from order_service import outbox, storage
from order_service import sweeper as sweeping
from order_service.events import order_event
from order_service.models import Caller, Draft, Item, Order, Status, WantedItem, orders
from order_service.models import outbox as table
from order_service.settings import Settings
from order_service.storage import NewOrder
from order_service.sweeper import Sweeper
from order_service.wakeups import Wakeups
from proto.events import ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_CREATED
from service_kit.lifecycle import background_task
from service_kit.postgres.engine import open_engine, transaction
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually

REOFFER_SECONDS = 100.0
PAST = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
FUTURE = PAST + dt.timedelta(hours=2)


@pytest_asyncio.fixture(scope="module")
async def migrated(order_database_url: str) -> str:
    settings = Settings(order_database_url=order_database_url)
    await order_main.migrate_database(settings, asyncio.Event())
    return order_database_url


@pytest_asyncio.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    """The order database without orders."""
    async with open_engine(migrated, "tests") as found:
        async with found.begin() as connection:
            await connection.execute(
                text("TRUNCATE orders, order_items, order_status_history, outbox")
            )
        yield found


def sweeper(engine: AsyncEngine, wakeups: Wakeups | None = None) -> Sweeper:
    return Sweeper(engine, wakeups or Wakeups(), REOFFER_SECONDS, keep_seconds=3600.0)


async def placed(
    engine: AsyncEngine, count: int = 1, due: dt.datetime = PAST, *, sent: bool = True
) -> list[uuid.UUID]:
    """PENDING orders, due to be offered again, whose first event was published (or not)."""
    new = []
    for _ in range(count):
        draft = Draft(7, [WantedItem(3, 2)])
        items = [Item(3, "thing", 2, 250)]
        order = Order(uuid7(), 7, Status.PENDING, items, 500, PAST, PAST)
        new.append(NewOrder(order, draft, order_event(order, Caller("r", "t"), PAST)))
    async with transaction(engine) as connection:
        await storage.insert_orders(connection, new, due)
    if sent:
        await mark_all_sent(engine)
    return [each.order.id for each in new]


async def mark_all_sent(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(table).values(sent_at=func.now()))


async def make_due(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(orders).values(next_offer_at=func.now()))


async def set_status(engine: AsyncEngine, order_id: uuid.UUID, **values: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(orders).where(orders.c.id == order_id).values(**values))


async def offered(engine: AsyncEngine) -> Sequence[Row[Any]]:
    """The events that wait to be published."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(table).where(table.c.sent_at.is_(None)))
        return rows.all()


async def pause(engine: AsyncEngine, order_id: uuid.UUID) -> float | None:
    """In how many seconds the order is due again; None for never."""
    seconds = func.extract("epoch", orders.c.next_offer_at - func.now())
    async with engine.connect() as connection:
        found = await connection.scalar(select(seconds).where(orders.c.id == order_id))
    return None if found is None else round(float(found))


async def test_an_order_pending_too_long_is_offered_again_with_a_new_event(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    wakeups = Wakeups()
    assert await sweeper(engine, wakeups).offer_again() == 1
    (found,) = await offered(engine)
    assert (found.order_id, found.type) == (order_id, ORDER_CREATED)
    body = json.loads(found.body)
    assert body["id"] == str(found.id)
    assert body["data"]["items"] == [
        {"product_id": 3, "name": "thing", "quantity": 2, "unit_price_cents": 250}
    ]
    assert wakeups.outbox.is_set()


async def test_an_event_offered_again_names_the_request_and_has_a_trace(
    engine: AsyncEngine,
) -> None:
    await placed(engine)
    await sweeper(engine).offer_again()
    (found,) = await offered(engine)
    assert found.request_id == "r"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", found.traceparent)


async def test_an_order_within_its_time_is_left_alone(engine: AsyncEngine) -> None:
    await placed(engine, due=FUTURE)
    assert await sweeper(engine).offer_again() == 0
    assert not await offered(engine)


async def test_offers_come_in_equal_pauses_for_minutes_and_then_ever_more_rarely(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    pauses = []
    for _ in range(18):
        assert await sweeper(engine).offer_again() == 1
        assert await sweeper(engine).offer_again() == 0  # not before its time
        pauses.append(await pause(engine, order_id))
        await mark_all_sent(engine)
        await make_due(engine)
    assert pauses == [200] * 13 + [400, 800, 1600, 3200, 3600]


def test_an_order_lost_twice_is_offered_within_30_s_each_time() -> None:
    """That is the promise: the pause, the sweep and a second for the way."""
    settings = Settings(order_database_url="postgresql+asyncpg://unused/unused")
    pause = 2 * settings.order_reoffer_seconds
    assert pause + sweeping.SWEEP_SECONDS + 1 < 30
    assert settings.order_reoffer_seconds + pause * storage.STEADY_OFFERS > 180


async def test_an_order_whose_event_is_unsent_gets_no_second_one_and_has_its_turn_later(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine, sent=False)
    assert await sweeper(engine).offer_again() == 0
    assert len(await offered(engine)) == 1
    assert await pause(engine, order_id) == 2 * REOFFER_SECONDS


async def test_waiting_in_the_outbox_lengthens_no_pause_after_it(engine: AsyncEngine) -> None:
    (order_id,) = await placed(engine, sent=False)
    for _ in range(storage.STEADY_OFFERS + 5):
        assert await sweeper(engine).offer_again() == 0
        await make_due(engine)
    await mark_all_sent(engine)
    assert await sweeper(engine).offer_again() == 1
    assert await pause(engine, order_id) == 2 * REOFFER_SECONDS


async def test_a_cancelled_order_whose_release_never_came_is_offered_again(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    await set_status(engine, order_id, status=Status.CANCELLED)
    assert await sweeper(engine).offer_again() == 1
    (found,) = await offered(engine)
    assert found.type == ORDER_CANCELLED
    assert json.loads(found.body)["data"]["items"]


async def test_a_settled_or_released_order_is_left_alone(engine: AsyncEngine) -> None:
    settled, released = await placed(engine, 2)
    async with transaction(engine) as connection:
        found = await storage.load_headers(connection, [settled])
        event = order_event(found[settled], Caller(), PAST)
        await storage.settle(connection, [_confirmed(found[settled])], [event], PAST)
    await set_status(engine, released, status=Status.CANCELLED)
    async with transaction(engine) as connection:
        await storage.release(connection, [released])
    await mark_all_sent(engine)
    assert await sweeper(engine).offer_again() == 0


def _confirmed(order: Order) -> Order:
    return Order(order.id, 7, Status.CONFIRMED, (), 500, PAST, PAST)


async def test_an_order_that_is_being_settled_is_not_offered_meanwhile(
    engine: AsyncEngine,
) -> None:
    (order_id,) = await placed(engine)
    async with transaction(engine) as settling:
        found = await storage.load_headers(settling, [order_id])
        event = order_event(_confirmed(found[order_id]), Caller(), PAST)
        await storage.settle(settling, [_confirmed(found[order_id])], [event], PAST)
        assert await sweeper(engine).offer_again() == 0
    assert [each.type for each in await offered(engine)] == [ORDER_CONFIRMED]


async def test_two_sweepers_at_once_offer_each_order_once(engine: AsyncEngine) -> None:
    ids = await placed(engine, 300)
    counts = await asyncio.gather(*(sweeper(engine).offer_again() for _ in range(4)))
    assert sum(counts) == 300
    assert sorted(each.order_id for each in await offered(engine)) == sorted(ids)


async def test_a_sweeper_passes_over_what_another_one_holds(engine: AsyncEngine) -> None:
    ids = await placed(engine, 3)
    async with transaction(engine) as other:
        assert set(await storage.postpone_overdue(other, REOFFER_SECONDS, 500)) == set(ids)
        assert await sweeper(engine).offer_again() == 0


async def test_a_backlog_that_is_not_answered_is_not_flooded_with_offers(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 50)
    ids = await placed(engine, 120)
    assert [await sweeper(engine).offer_again() for _ in range(3)] == [50, 0, 0]
    first = {each.order_id for each in await offered(engine)}
    await mark_all_sent(engine)
    await make_due(engine)
    assert [await sweeper(engine).offer_again() for _ in range(3)] == [50, 0, 0]
    assert {each.order_id for each in await offered(engine)} == first
    await answer(engine, first)
    assert [await sweeper(engine).offer_again() for _ in range(3)] == [50, 0, 0]
    await answer(engine, {each.order_id for each in await offered(engine)})
    assert [await sweeper(engine).offer_again() for _ in range(3)] == [20, 0, 0]
    assert len({each.order_id for each in await offered(engine)}) == len(ids)


async def test_orders_that_are_never_answered_do_not_keep_others_from_being_offered(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 5)
    for order_id in await placed(engine, 5):
        await set_status(engine, order_id, offers=storage.STEADY_OFFERS + 1, next_offer_at=FUTURE)
    (lost,) = await placed(engine)
    assert await sweeper(engine).offer_again() == 1
    assert [each.order_id for each in await offered(engine)] == [lost]


async def answer(engine: AsyncEngine, ids: set[uuid.UUID]) -> None:
    async with engine.begin() as connection:
        settled = update(orders).where(orders.c.id.in_(ids)).values(next_offer_at=None)
        await connection.execute(settled)


async def test_more_than_a_portion_of_delivered_events_is_pruned_in_one_sweep(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PRUNED_AT_ONCE", 10)
    await placed(engine, 45)
    async with engine.begin() as connection:
        await connection.execute(update(table).values(sent_at=PAST - dt.timedelta(hours=1)))
    kept = await placed(engine, sent=False)
    assert await sweeper(engine).prune() == 45
    assert [each.order_id for each in await offered(engine)] == kept


async def test_the_running_sweeper_offers_and_prunes_by_itself(engine: AsyncEngine) -> None:
    await placed(engine)
    async with engine.begin() as connection:
        await connection.execute(update(table).values(sent_at=PAST - dt.timedelta(hours=1)))
    async with background_task(sweeper(engine).run(), asyncio.Event()):

        async def types() -> list[str]:
            async with engine.connect() as connection:
                rows = (await connection.execute(select(table.c.type, table.c.sent_at))).all()
            return [row.type if row.sent_at is None else "sent" for row in rows]

        await eventually(types, lambda found: found == [ORDER_CREATED])


async def test_a_sweeper_whose_database_was_away_goes_on(
    migrated: str, engine: AsyncEngine
) -> None:
    async with proxied(migrated) as (proxy, url), open_engine(url, "sweeper") as through:
        await proxy.cut()
        eager = Sweeper(through, Wakeups(), reoffer_seconds=0.2, keep_seconds=3600.0)
        async with background_task(eager.run(), asyncio.Event()):
            await placed(engine)
            await proxy.resume()
            await eventually(lambda: offered(engine))
