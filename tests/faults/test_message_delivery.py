"""Messages that are delivered again, out of order, in bulk, or cannot be handled."""

import asyncio
import json
import time
import uuid

import psutil
import pytest

from proto.dead_letters import REASON_HEADER
from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE, INVENTORY_EVENT_TYPES, INVENTORY_QUEUE
from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import (
    RECOVERY_SECONDS,
    violations_after,
    wait_until_settled,
)
from tests.faults.shop.shop import START_SECONDS, Shop
from tests.support import queues
from tests.support.waiting import eventually

BACKLOG = 100_000
MAX_MORE_MEMORY = 64 * 1024 * 1024
"""What the consumer may use beyond its idle memory, however long the queue is."""


async def test_every_message_is_delivered_three_times_in_random_order(
    shop: Shop, buyers: Buyers
) -> None:
    await wait_until_settled(shop, time.monotonic() + RECOVERY_SECONDS)
    async with shop.processes["consumer_service"].stopped():
        before = {message.message_id for message in await _published_events(shop)}
        await buyers.place_orders(8)
        await _wait_until_published(shop)

        new = [each for each in await _published_events(shop) if each.message_id not in before]
        assert {message.routing_key for message in new} == set(INVENTORY_EVENT_TYPES)
        deliveries = [(each.message_id, each.body) for each in new] * 3
        buyers.random_for("deliveries").shuffle(deliveries)
        await queues.purge(shop.broker, INVENTORY_QUEUE)
        await queues.deliver_all(shop.broker, deliveries)
    healed_at = time.monotonic() + START_SECONDS

    assert await violations_after(shop, buyers, healed_at) == []


async def test_messages_that_cannot_be_handled_become_dead_letters_while_orders_are_placed(
    shop: Shop, buyers: Buyers
) -> None:
    order = str(uuid.uuid4())
    bodies = {
        "unreadable": [b"{", b"\xff\xfe\x00", b"[]", _event(data={"order_id": "none"})],
        "unknown_version": [_event(specversion="2.0"), _event(dataschema="urn:none")],
        "unknown_type": [_event(type="order.forgotten")],
        "unknown_product": [
            _event(data={"order_id": order, "items": [{"product_id": 2**60, "quantity": 1}]})
        ],
        "unknown_order": [
            _event(
                data={
                    "order_id": order,
                    "items": [{"product_id": buyers.products[1], "quantity": 1}],
                }
            )
        ],
    }
    sent = {str(uuid.uuid4()): (reason, body) for reason in bodies for body in bodies[reason]}

    async with buyers.ordering():
        for message_id, (_, body) in sent.items():
            await queues.deliver(shop.broker, body, message_id)
        healed_at = time.monotonic()

    async def reasons() -> dict[str, str]:
        return {
            message.message_id: message.headers[REASON_HEADER]
            for message in await queues.queued_messages(shop.broker, DEAD_LETTER_QUEUE)
            if message.message_id in sent
        }

    found = await eventually(reasons, lambda found: len(found) == len(sent))
    assert {key: reason.split(":")[0] for key, reason in found.items()} == {
        key: reason for key, (reason, _) in sent.items()
    }
    assert await violations_after(shop, buyers, healed_at, faults=len(sent)) == []


@pytest.mark.whole_matrix
@pytest.mark.timeout(900)
async def test_a_backlog_of_a_hundred_thousand_messages_is_drained_in_bounded_memory(
    shop: Shop, buyers: Buyers
) -> None:
    consumer = shop.processes["consumer_service"]
    await buyers.place_orders(10)
    await wait_until_settled(shop, time.monotonic() + RECOVERY_SECONDS)
    idle = psutil.Process(consumer.pid).memory_info().rss
    async with consumer.stopped():
        known = await _published_events(shop)
        copies = (known[n % len(known)] for n in range(BACKLOG))
        await queues.deliver_all(shop.broker, ((each.message_id, each.body) for each in copies))
    peak = 0
    placing = asyncio.create_task(buyers.place_orders(5))
    while await queues.ready_count(shop.broker, INVENTORY_QUEUE):
        peak = max(peak, psutil.Process(consumer.pid).memory_info().rss)
        await asyncio.sleep(0.2)
    drained_at = time.monotonic()
    await placing

    assert await violations_after(shop, buyers, drained_at) == []
    assert peak < idle + MAX_MORE_MEMORY, (idle, peak)


def _event(**changes: object) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/order-service",
        "type": "order.created",
        "subject": "an order",
        "datacontenttype": "application/json",
        "dataschema": "urn:ecommerce:order-events:v1",
        "data": {"order_id": str(uuid.uuid4()), "items": [{"product_id": 1, "quantity": 1}]},
    }
    return json.dumps({**event, **changes}).encode()


async def _published_events(shop: Shop) -> list[queues.QueuedMessage]:
    """All events for inventory that were published so far."""
    audited = await queues.queued_messages(shop.broker, AUDIT_QUEUE)
    return [message for message in audited if message.routing_key in INVENTORY_EVENT_TYPES]


async def _wait_until_published(shop: Shop) -> None:
    async def unsent() -> int:
        return int(await shop.orders.value("SELECT count(*) FROM outbox WHERE sent_at IS NULL"))

    await eventually(unsent, lambda count: count == 0)
