"""The outbox relay between a real database and a real broker, in front of a real producer."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from stamina.instrumentation import RetryDetails

from order_service.clients import ProducerClient, open_producer_channel
from order_service.domain import OutboxEvent
from order_service.outbox import relay, repository
from order_service.outbox.relay import Relay
from order_service.tables import outbox
from order_service.wakeups import Wakeups
from proto.events import AUDIT_QUEUE, EXCHANGE
from service_kit.errors import ServiceError, Unavailable
from service_kit.lifecycle import background_task
from service_kit.postgres.engine import transaction
from tests.integration.environment import amqp_channel, publish_probe, purge
from tests.integration.orders.running_relay import (
    add,
    all_sent,
    leaders,
    new_events,
    published,
    retried,
    running_relay,
    unsent,
)
from tests.support.infrastructure import Broker
from tests.support.services import producer_running
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually, free_port


async def row(engine: AsyncEngine, event_id: str) -> Any:
    """An outbox row; `pause`: the seconds until its next attempt."""
    async with engine.connect() as connection:
        pause = func.extract("epoch", outbox.c.next_attempt_at - func.now()).label("pause")
        found = select(outbox, pause).where(outbox.c.id == uuid.UUID(event_id))
        return (await connection.execute(found)).one()


async def test_events_are_published_in_order_and_marked(
    broker: Broker, engine: AsyncEngine, producer: str
) -> None:
    await purge(broker, AUDIT_QUEUE)
    ids = await add(engine, new_events(250))
    async with running_relay(engine, producer, max_items=100):
        await all_sent(engine)
    assert await published(broker) == ids


async def test_a_full_batch_is_followed_by_the_next_at_once(
    engine: AsyncEngine, producer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 3600.0)
    await add(engine, new_events(6))
    async with running_relay(engine, producer, max_items=2):
        await all_sent(engine)


async def test_an_event_is_marked_only_after_the_confirm_of_the_broker(
    broker: Broker, engine: AsyncEngine
) -> None:
    async with (
        proxied(broker.url) as (proxy, url),
        producer_running(url) as (address, stub),
    ):
        await publish_probe(stub)
        proxy.pause()
        await add(engine, new_events(3))
        async with running_relay(engine, address):
            await proxy.holding()
            assert await unsent(engine) == 3
            await proxy.resume()
            await all_sent(engine)


async def test_events_wait_for_a_producer_that_is_unavailable(
    broker: Broker, engine: AsyncEngine, retries: list[RetryDetails]
) -> None:
    port = free_port()
    ids = await add(engine, new_events(3))
    async with running_relay(engine, f"127.0.0.1:{port}"):
        await retried(retries, 2)
        assert await unsent(engine) == 3
        async with producer_running(broker.url, port):
            await all_sent(engine)
    assert set(ids) <= set(await published(broker))


async def test_events_wait_for_a_broker_that_is_unavailable(
    broker: Broker, engine: AsyncEngine, retries: list[RetryDetails]
) -> None:
    async with proxied(broker.url) as (proxy, url), producer_running(url) as (address, _):
        await proxy.cut()
        ids = await add(engine, new_events(3))
        async with running_relay(engine, address):
            await retried(retries, 2)
            assert await unsent(engine) == 3
            await proxy.resume()
            await all_sent(engine)
    assert set(ids) <= set(await published(broker))


class SwitchedProducer(ProducerClient):
    """A producer that can be made unavailable, and confirms every event otherwise."""

    def __init__(self) -> None:
        self.available = False

    async def publish(self, events: Sequence[OutboxEvent]) -> list[ServiceError | None]:
        if not self.available:
            raise Unavailable("UNAVAILABLE", "the producer is unavailable")
        return [None] * len(events)


async def test_pauses_grow_while_the_producer_is_unavailable_and_start_small_after_a_success(
    engine: AsyncEngine, retries: list[RetryDetails]
) -> None:
    producer, wakeups = SwitchedProducer(), Wakeups()
    runner = Relay(engine, producer, wakeups, 256)
    async with background_task(runner.run(), asyncio.Event()):
        for _ in range(2):
            producer.available = False
            await add(engine, new_events(3))
            await retried(retries, 4)
            assert await unsent(engine) == 3
            pauses = [each.wait_for for each in retries]
            assert pauses[0] < 0.25
            assert pauses[3] > 0.5
            assert {each.name for each in retries} == {"relay"}
            producer.available = True
            await all_sent(engine)
            retries.clear()


async def test_a_refused_event_does_not_hold_up_the_others(
    engine: AsyncEngine, producer: str
) -> None:
    refused, *_ = await add(engine, [*new_events(1, "order.unknown"), *new_events(20)])
    async with running_relay(engine, producer):
        await eventually(lambda: unsent(engine), lambda count: count == 1)
        await add(engine, new_events(20))
        await eventually(lambda: unsent(engine), lambda count: count == 1)
    waiting = await row(engine, refused)
    assert waiting.sent_at is None
    assert waiting.attempts >= 1
    assert waiting.last_error.startswith("UNROUTABLE")


async def test_a_refused_event_waits_twice_as_long_each_time_until_it_is_accepted(
    broker: Broker, engine: AsyncEngine, producer: str
) -> None:
    (refused,) = await add(engine, new_events(1, "order.bound_later"))
    pauses = []
    async with open_producer_channel(producer) as channel, engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        runner = Relay(engine, ProducerClient(channel), Wakeups(), 10)
        due = update(outbox).values(next_attempt_at=func.now())
        for _ in range(8):
            assert await runner.send_batch(connection) == 1
            assert await runner.send_batch(connection) == 0  # not before its time
            pauses.append(round(float((await row(engine, refused)).pause)))
            await connection.execute(due)
        async with amqp_channel(broker) as amqp:
            queue = await amqp.get_queue(AUDIT_QUEUE)
            await queue.bind(EXCHANGE, "order.bound_later")
            await runner.send_batch(connection)
            await queue.unbind(EXCHANGE, "order.bound_later")
    assert pauses == [1, 2, 4, 8, 15, 15, 15, 15]
    assert (await row(engine, refused)).sent_at is not None


async def test_events_committed_late_are_not_lost(
    broker: Broker, engine: AsyncEngine, producer: str
) -> None:
    early, later = new_events(1), new_events(1)
    async with running_relay(engine, producer):
        async with transaction(engine) as slow:
            await repository.add_events(slow, early)
            (later_id,) = await add(engine, later)

            async def sent() -> bool:
                return (await row(engine, later_id)).sent_at is not None

            await eventually(sent)
        await all_sent(engine)
    assert str(early[0].id) in await published(broker)


async def test_a_notification_wakes_the_relay_before_its_poll(
    engine: AsyncEngine, producer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 60.0)
    wakeups = Wakeups()
    async with running_relay(engine, producer, wakeups):
        for _ in range(3):
            await add(engine, new_events(1))
            wakeups.notify()
            await all_sent(engine)


async def test_an_event_without_a_notification_is_found_by_the_poll(
    engine: AsyncEngine, producer: str
) -> None:
    async with running_relay(engine, producer):
        await eventually(lambda: leaders(engine), lambda found: len(found) == 1)
        await add(engine, new_events(1))
        await all_sent(engine)


async def test_events_larger_than_a_grpc_message_are_sent_in_several_batches(
    engine: AsyncEngine, producer: str
) -> None:
    """256 orders of 100 items with long names weigh more than the 16 MiB of one call."""
    await add(engine, new_events(256, body=json.dumps({"name": "x" * 80_000}).encode()))
    async with running_relay(engine, producer):
        await all_sent(engine)
