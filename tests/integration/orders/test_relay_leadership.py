"""Several relays: one leads, another takes over."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from stamina.instrumentation import RetryDetails
from structlog.testing import capture_logs

from order_service.clients import PUBLISH_SECONDS
from order_service.outbox import relay, repository
from proto.events import AUDIT_QUEUE
from service_kit.errors import Unavailable
from service_kit.pacing import MAX_BACKOFF_SECONDS
from service_kit.postgres.engine import open_engine
from tests.integration.environment import publish_probe, purge
from tests.integration.orders.running_relay import (
    add,
    all_sent,
    leaders,
    new_events,
    published,
    retried,
    running_relay,
    terminate,
)
from tests.support.infrastructure import Broker
from tests.support.services import producer_running
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually


@pytest_asyncio.fixture
async def two_relays(
    migrated: str, engine: AsyncEngine, producer: str
) -> AsyncIterator[tuple[TcpProxy, AsyncExitStack]]:
    """Two relays, the first of which leads: the proxy before its database, and what ends it."""
    async with (
        proxied(migrated) as (proxy, url),
        open_engine(url, "first") as first,
        open_engine(migrated, "second") as second,
        AsyncExitStack() as ends_first,
    ):
        await ends_first.enter_async_context(running_relay(first, producer))
        await eventually(lambda: leaders(engine))
        async with running_relay(second, producer):
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
    monkeypatch.setattr(repository, "LEADER_IDLE_SECONDS", 1.5)
    async with (
        proxied(migrated) as (proxy, url),
        open_engine(url, "first") as first,
        open_engine(migrated, "second") as second,
        running_relay(first, producer),
    ):
        before = await eventually(lambda: leaders(engine))
        async with running_relay(second, producer):
            proxy.pause()
            await add(engine, new_events(3))
            await all_sent(engine)
            assert await leaders(engine) != before
            await proxy.resume()


def test_a_leader_that_works_is_never_mistaken_for_one_that_hangs() -> None:
    longest = PUBLISH_SECONDS + MAX_BACKOFF_SECONDS + relay.POLL_SECONDS
    assert longest < repository.LEADER_IDLE_SECONDS


async def test_relaying_continues_when_the_session_of_the_leader_is_terminated(
    engine: AsyncEngine, two_relays: object
) -> None:
    before = await leaders(engine)
    await terminate(engine, before[0])
    await add(engine, new_events(3))
    await all_sent(engine)
    found = await eventually(lambda: leaders(engine))
    assert len(found) == 1
    assert found != before


async def test_a_leader_that_lost_its_session_competes_again_without_backing_off(
    engine: AsyncEngine, producer: str, retries: list[RetryDetails]
) -> None:
    with capture_logs() as logs:
        async with running_relay(engine, producer):
            for _ in range(3):
                (leader,) = await eventually(lambda: leaders(engine))
                await terminate(engine, leader)
                await add(engine, new_events(3))
                await all_sent(engine)
    events = [each["event"] for each in logs if each["event"].startswith("relay ")]
    assert events == ["relay acquired leadership", "relay lost leadership"] * 3 + [
        "relay acquired leadership"
    ]
    assert not retries


async def test_a_failure_of_the_connection_leaves_leadership_as_a_service_error(
    engine: AsyncEngine,
) -> None:
    async def lose_the_session() -> None:
        async with repository.leadership(engine) as connection:
            assert connection is not None
            (leader,) = await leaders(engine)
            await terminate(engine, leader)
            await repository.unsent_events(connection, 1)

    with pytest.raises(Unavailable):
        await lose_the_session()
    assert await leaders(engine) == []


async def test_events_whose_mark_was_lost_with_the_session_are_published_again(
    broker: Broker, engine: AsyncEngine
) -> None:
    """At least once: between confirm and mark there is no transaction that spans both."""
    await purge(broker, AUDIT_QUEUE)
    async with proxied(broker.url) as (proxy, url), producer_running(url) as (address, stub):
        await publish_probe(stub)
        proxy.pause()
        ids = await add(engine, new_events(3))
        async with running_relay(engine, address):
            await proxy.holding()
            (leader,) = await leaders(engine)
            await terminate(engine, leader)
            await proxy.resume()
            await all_sent(engine)
    found = await published(broker)
    assert [event_id for event_id in found if event_id in ids] == ids * 2


async def test_a_relay_whose_database_was_unavailable_continues(
    migrated: str, engine: AsyncEngine, producer: str, retries: list[RetryDetails]
) -> None:
    async with (
        proxied(migrated) as (proxy, url),
        open_engine(url, "first") as through,
        running_relay(through, producer),
    ):
        await eventually(lambda: leaders(engine))
        await proxy.cut()
        await add(engine, new_events(3))
        await retried(retries, 2)
        await proxy.resume()
        await all_sent(engine)
