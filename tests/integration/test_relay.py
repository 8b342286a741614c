"""The outbox relay between a real database and a real broker, in front of a real producer."""

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

import order_service.__main__ as order_main
from order_service import outbox, relay
from order_service.clients import PUBLISH_SECONDS, ProducerClient, open_producer_channel
from order_service.events import OutboxEvent
from order_service.models import Caller
from order_service.models import outbox as table
from order_service.relay import Relay
from order_service.settings import Settings
from order_service.wakeups import Wakeups
from proto.events import AUDIT_QUEUE, EXCHANGE, ORDER_CONFIRMED
from service_kit.lifecycle import background_task
from service_kit.postgres.engine import open_engine, transaction
from tests.integration.environment import amqp_channel, envelope, peek, publish_probe, purge
from tests.support.infrastructure import Broker
from tests.support.services import producer_running
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually, free_port

LEADER = text("""
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
""")


@pytest_asyncio.fixture(scope="module")
async def migrated(order_database_url: str) -> str:
    settings = Settings(order_database_url=order_database_url)
    await order_main.migrate_database(settings, asyncio.Event())
    return order_database_url


@pytest_asyncio.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    """The order database with an empty outbox."""
    async with open_engine(migrated, "tests") as found:
        async with found.begin() as connection:
            await connection.execute(text("TRUNCATE outbox"))
        yield found


@pytest_asyncio.fixture(scope="module")
async def producer(broker: Broker) -> AsyncIterator[str]:
    """A producer that can publish: its address."""
    async with producer_running(broker.url) as (address, stub):
        await publish_probe(stub)
        yield address


@asynccontextmanager
async def relaying(
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
    return [OutboxEvent(uuid7(), order_id, type_, raw, Caller("r", "")) for _ in range(count)]


async def add(engine: AsyncEngine, events: Sequence[OutboxEvent]) -> list[str]:
    async with transaction(engine) as connection:
        await outbox.add(connection, events)
    return [str(event.id) for event in events]


async def unsent(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        found = select(func.count()).select_from(table).where(table.c.sent_at.is_(None))
        return int(await connection.scalar(found) or 0)


async def all_sent(engine: AsyncEngine) -> None:
    await eventually(lambda: unsent(engine), lambda count: count == 0)


async def row(engine: AsyncEngine, event_id: str) -> Any:
    """An outbox row; `pause` is how many seconds its next attempt is away."""
    async with engine.connect() as connection:
        pause = func.extract("epoch", table.c.next_attempt_at - func.now()).label("pause")
        found = select(table, pause).where(table.c.id == uuid.UUID(event_id))
        return (await connection.execute(found)).one()


async def leaders(engine: AsyncEngine) -> list[int]:
    """The database sessions that hold the relay's lock."""
    async with engine.connect() as connection:
        return list(await connection.scalars(LEADER))


async def published(broker: Broker) -> list[str]:
    """The ids of the events published, in their order."""
    return [each["properties"]["message_id"] for each in await peek(broker, AUDIT_QUEUE)]


async def test_events_are_published_in_order_and_marked(
    broker: Broker, engine: AsyncEngine, producer: str
) -> None:
    await purge(broker, AUDIT_QUEUE)
    ids = await add(engine, new_events(250))
    async with relaying(engine, producer, max_items=100):
        await all_sent(engine)
    assert await published(broker) == ids


async def test_a_full_batch_is_followed_by_the_next_without_a_sign_of_more(
    engine: AsyncEngine, producer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 3600.0)
    await add(engine, new_events(6))
    async with relaying(engine, producer, max_items=2):
        await all_sent(engine)


async def test_an_event_is_marked_only_after_the_brokers_confirm(
    broker: Broker, engine: AsyncEngine
) -> None:
    async with (
        proxied(broker.url) as (proxy, url),
        producer_running(url) as (address, stub),
    ):
        await publish_probe(stub)
        proxy.pause()
        await add(engine, new_events(3))
        async with relaying(engine, address):
            await proxy.holding()
            assert await unsent(engine) == 3
            await proxy.resume()
            await all_sent(engine)


async def test_events_wait_for_a_producer_that_is_away(broker: Broker, engine: AsyncEngine) -> None:
    port = free_port()
    ids = await add(engine, new_events(3))
    async with relaying(engine, f"127.0.0.1:{port}") as runner:

        async def failures() -> int:
            return runner._failures

        await eventually(failures)
        assert await unsent(engine) == 3
        async with producer_running(broker.url, port):
            await all_sent(engine)
    assert set(ids) <= set(await published(broker))


async def test_events_wait_for_a_broker_that_is_away(broker: Broker, engine: AsyncEngine) -> None:
    async with proxied(broker.url) as (proxy, url), producer_running(url) as (address, _):
        await proxy.cut()
        ids = await add(engine, new_events(3))
        async with relaying(engine, address) as runner:

            async def failures() -> int:
                return runner._failures

            await eventually(failures)
            assert await unsent(engine) == 3
            await proxy.resume()
            await all_sent(engine)
    assert set(ids) <= set(await published(broker))


async def test_an_event_refused_waits_by_itself_while_the_others_go_on(
    engine: AsyncEngine, producer: str
) -> None:
    refused, *_ = await add(engine, [*new_events(1, "order.unheard_of"), *new_events(20)])
    async with relaying(engine, producer):
        await eventually(lambda: unsent(engine), lambda count: count == 1)
        await add(engine, new_events(20))
        await eventually(lambda: unsent(engine), lambda count: count == 1)
    waiting = await row(engine, refused)
    assert waiting.sent_at is None
    assert waiting.attempts >= 1
    assert waiting.last_error.startswith("UNROUTABLE")


async def test_an_event_refused_again_waits_twice_as_long_and_goes_once_it_is_taken(
    broker: Broker, engine: AsyncEngine, producer: str
) -> None:
    (refused,) = await add(engine, new_events(1, "order.taken_later"))
    pauses = []
    async with open_producer_channel(producer) as channel, engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        runner = Relay(engine, ProducerClient(channel), Wakeups(), 10)
        due = update(table).values(next_attempt_at=func.now())
        for _ in range(8):
            assert await runner.send_batch(connection) == 1
            assert await runner.send_batch(connection) == 0  # not before its time
            pauses.append(round(float((await row(engine, refused)).pause)))
            await connection.execute(due)
        async with amqp_channel(broker) as amqp:
            queue = await amqp.get_queue(AUDIT_QUEUE)
            await queue.bind(EXCHANGE, "order.taken_later")
            await runner.send_batch(connection)
            await queue.unbind(EXCHANGE, "order.taken_later")
    assert pauses == [1, 2, 4, 8, 15, 15, 15, 15]
    assert (await row(engine, refused)).sent_at is not None


async def test_rows_committed_late_are_not_lost(
    broker: Broker, engine: AsyncEngine, producer: str
) -> None:
    early, later = new_events(1), new_events(1)
    async with relaying(engine, producer):
        async with transaction(engine) as slow:
            await outbox.add(slow, early)
            (later_id,) = await add(engine, later)

            async def sent() -> bool:
                return (await row(engine, later_id)).sent_at is not None

            await eventually(sent)
        await all_sent(engine)
    assert str(early[0].id) in await published(broker)


async def test_a_commit_wakes_the_relay_long_before_its_poll(
    engine: AsyncEngine, producer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 60.0)
    wakeups = Wakeups()
    async with relaying(engine, producer, wakeups):
        for _ in range(3):
            await add(engine, new_events(1))
            wakeups.announce(())
            await all_sent(engine)


async def test_a_row_of_which_no_one_told_is_found_by_the_poll(
    engine: AsyncEngine, producer: str
) -> None:
    async with relaying(engine, producer):
        await eventually(lambda: leaders(engine), lambda found: len(found) == 1)
        await add(engine, new_events(1))
        await all_sent(engine)


@pytest_asyncio.fixture
async def two_relays(
    migrated: str, engine: AsyncEngine, producer: str
) -> AsyncIterator[tuple[TcpProxy, AsyncExitStack]]:
    """Two relays, the first of which leads: the way to its database, and what ends it."""
    async with (
        proxied(migrated) as (proxy, url),
        open_engine(url, "first") as first,
        open_engine(migrated, "second") as second,
        AsyncExitStack() as ends_first,
    ):
        await ends_first.enter_async_context(relaying(first, producer))
        await eventually(lambda: leaders(engine))
        async with relaying(second, producer):
            yield proxy, ends_first


async def test_of_two_relays_one_leads_and_each_event_is_published_once(
    broker: Broker, engine: AsyncEngine, two_relays: object
) -> None:
    await purge(broker, AUDIT_QUEUE)
    ids = []
    for _ in range(5):
        ids += await add(engine, new_events(20))
        await all_sent(engine)
        assert len(await leaders(engine)) == 1
    assert await published(broker) == ids


async def test_the_other_relay_takes_over_when_the_leaders_database_session_dies(
    broker: Broker, engine: AsyncEngine, two_relays: tuple[TcpProxy, AsyncExitStack]
) -> None:
    proxy, _ = two_relays
    before = await leaders(engine)
    await proxy.cut()
    ids = await add(engine, new_events(3))
    await all_sent(engine)
    assert await leaders(engine) != before
    assert set(ids) <= set(await published(broker))


async def test_the_other_relay_takes_over_when_the_leader_is_stopped(
    engine: AsyncEngine, two_relays: tuple[TcpProxy, AsyncExitStack]
) -> None:
    _, ends_first = two_relays
    before = await leaders(engine)
    await ends_first.aclose()
    await add(engine, new_events(3))
    await all_sent(engine)
    assert await leaders(engine) != before


async def test_the_other_relay_takes_over_when_the_leader_hangs(
    monkeypatch: pytest.MonkeyPatch, migrated: str, engine: AsyncEngine, producer: str
) -> None:
    """Stopped by SIGSTOP its connection stays, and the kernel answers for it."""
    monkeypatch.setattr(outbox, "LEADER_IDLE_SECONDS", 1.5)
    async with (
        proxied(migrated) as (proxy, url),
        open_engine(url, "first") as first,
        open_engine(migrated, "second") as second,
        relaying(first, producer),
    ):
        before = await eventually(lambda: leaders(engine))
        async with relaying(second, producer):
            proxy.pause()
            await add(engine, new_events(3))
            await all_sent(engine)
            assert await leaders(engine) != before
            await proxy.resume()


def test_a_leader_that_works_is_never_taken_for_one_that_hangs() -> None:
    longest = PUBLISH_SECONDS + max(relay.BACKOFF_SECONDS) + relay.POLL_SECONDS
    assert longest < outbox.LEADER_IDLE_SECONDS


async def test_relaying_goes_on_when_the_leaders_session_is_terminated(
    engine: AsyncEngine, two_relays: object
) -> None:
    before = await leaders(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before[0]})
    await add(engine, new_events(3))
    await all_sent(engine)
    found = await eventually(lambda: leaders(engine))
    assert len(found) == 1
    assert found != before


async def test_events_whose_mark_was_lost_with_the_session_are_published_again(
    broker: Broker, engine: AsyncEngine
) -> None:
    """At least once: between confirm and mark there is no transaction that spans both."""
    await purge(broker, AUDIT_QUEUE)
    async with proxied(broker.url) as (proxy, url), producer_running(url) as (address, stub):
        await publish_probe(stub)
        proxy.pause()
        ids = await add(engine, new_events(3))
        async with relaying(engine, address):
            await proxy.holding()
            (leader,) = await leaders(engine)
            async with engine.connect() as connection:
                terminate = text("SELECT pg_terminate_backend(:pid)")
                await connection.execute(terminate, {"pid": leader})
            await proxy.resume()
            await all_sent(engine)
    found = await published(broker)
    assert [event_id for event_id in found if event_id in ids] == ids * 2


async def test_a_relay_whose_database_was_away_goes_on(
    migrated: str, engine: AsyncEngine, producer: str
) -> None:
    async with (
        proxied(migrated) as (proxy, url),
        open_engine(url, "first") as through,
        relaying(through, producer) as runner,
    ):
        await eventually(lambda: leaders(engine))
        await proxy.cut()
        await add(engine, new_events(3))

        async def failures() -> bool:
            return runner._failures > 1

        await eventually(failures)
        await proxy.resume()
        await all_sent(engine)


async def test_a_batch_larger_than_a_grpc_message_may_be_is_not_stuck_for_ever(
    engine: AsyncEngine, producer: str
) -> None:
    """256 orders of 100 items with long names weigh more than the 16 MiB of one call."""
    await add(engine, new_events(256, body=json.dumps({"name": "x" * 80_000}).encode()))
    async with relaying(engine, producer):
        await all_sent(engine)


async def test_prune_deletes_what_was_sent_long_ago_and_nothing_else(engine: AsyncEngine) -> None:
    now = dt.datetime.now(dt.UTC)
    ages = {"old": now - dt.timedelta(hours=2), "new": now - dt.timedelta(minutes=1), "not": None}
    async with engine.begin() as connection:
        for name, sent_at in ages.items():
            values = {
                "id": uuid7(),
                "order_id": uuid.uuid4(),
                "type": name,
                "body": b"{}",
                "sent_at": sent_at,
                "created_at": now - dt.timedelta(days=1),
            }
            await connection.execute(insert(table).values(values))
    assert await outbox.prune(engine, 3600) == 1
    async with engine.connect() as connection:
        assert set(await connection.scalars(select(table.c.type))) == {"new", "not"}
