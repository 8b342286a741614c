"""Messages that come again, out of order, in heaps, or that nobody can read."""

import asyncio
import json
import time
import uuid

import psutil
import pytest

from proto.events import (
    AUDIT_QUEUE,
    DEAD_LETTER_QUEUE,
    INVENTORY_EVENT_TYPES,
    INVENTORY_QUEUE,
    REASON_HEADER,
)
from tests.faults import queues
from tests.faults.harness import RECOVERY_SECONDS, START_SECONDS, Shop
from tests.faults.invariants import broken, settled
from tests.faults.load import Load
from tests.support.waiting import eventually

BACKLOG = 100_000
MEMORY = 64 * 1024 * 1024
"""What the consumer may need beyond what it has when idle, however much waits."""


async def test_every_delivery_comes_three_times_and_shuffled(shop: Shop, load: Load) -> None:
    await settled(shop, time.monotonic() + RECOVERY_SECONDS)
    async with shop.children["consumer_service"].away():
        before = {message.message_id for message in await _events(shop)}
        await load.place(8)
        await _all_published(shop)

        new = [each for each in await _events(shop) if each.message_id not in before]
        assert {message.routing_key for message in new} == set(INVENTORY_EVENT_TYPES)
        deliveries = [(each.message_id, each.body) for each in new] * 3
        load.chance("order of deliveries").shuffle(deliveries)
        await queues.purge(shop.broker, INVENTORY_QUEUE)
        await queues.deliver_all(shop.broker, deliveries)
    healed_at = time.monotonic() + START_SECONDS

    assert await broken(shop, load, healed_at) == []


async def test_what_nobody_can_read_is_put_aside_while_orders_go_on(shop: Shop, load: Load) -> None:
    order = str(uuid.uuid4())
    bodies = {
        "unreadable": [b"{", b"\xff\xfe\x00", b"[]", _event(data={"order_id": "none"})],
        "unknown_version": [_event(specversion="2.0"), _event(dataschema="urn:none")],
        "unknown_type": [_event(type="order.forgotten")],
        "unknown_product": [
            _event(data={"order_id": order, "items": [{"product_id": 2**60, "quantity": 1}]})
        ],
        "unknown_order": [
            _event(data={"order_id": order, "items": [{"product_id": load.products[1]} | _ONE]})
        ],
    }
    sent = {str(uuid.uuid4()): (reason, body) for reason in bodies for body in bodies[reason]}

    async with load.going_on():
        for message_id, (_, body) in sent.items():
            await queues.deliver(shop.broker, body, message_id)
        healed_at = time.monotonic()

    async def reasons() -> dict[str, str]:
        return {
            letter.message_id: letter.headers[REASON_HEADER]
            for letter in await queues.queued_messages(shop.broker, DEAD_LETTER_QUEUE)
            if letter.message_id in sent
        }

    found = await eventually(reasons, lambda found: len(found) == len(sent))
    assert {key: reason.split(":")[0] for key, reason in found.items()} == {
        key: reason for key, (reason, _) in sent.items()
    }
    assert await broken(shop, load, healed_at, faults=len(sent)) == []


@pytest.mark.whole_matrix
@pytest.mark.timeout(900)
async def test_a_backlog_of_a_hundred_thousand_is_worked_off_in_bounded_memory(
    shop: Shop, load: Load
) -> None:
    consumer = shop.children["consumer_service"]
    await load.place(10)
    await settled(shop, time.monotonic() + RECOVERY_SECONDS)
    idle = psutil.Process(consumer.pid).memory_info().rss
    async with consumer.away():
        known = await _events(shop)
        copies = (known[n % len(known)] for n in range(BACKLOG))
        await queues.deliver_all(shop.broker, ((each.message_id, each.body) for each in copies))
    peak = 0
    placing = asyncio.create_task(load.place(5))
    while await queues.waiting(shop.broker, INVENTORY_QUEUE):
        peak = max(peak, psutil.Process(consumer.pid).memory_info().rss)
        await asyncio.sleep(0.2)
    worked_off_at = time.monotonic()
    await placing

    assert await broken(shop, load, worked_off_at) == []
    assert peak < idle + MEMORY, (idle, peak)


_ONE = {"quantity": 1}


def _event(**changes: object) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/order-service",
        "type": "order.created",
        "subject": "an order",
        "datacontenttype": "application/json",
        "dataschema": "urn:ecommerce:order-events:v1",
        "data": {"order_id": str(uuid.uuid4()), "items": [{"product_id": 1} | _ONE]},
    }
    return json.dumps({**event, **changes}).encode()


async def _events(shop: Shop) -> list[queues.Letter]:
    """The events for inventory that were ever published."""
    audited = await queues.queued_messages(shop.broker, AUDIT_QUEUE)
    return [message for message in audited if message.routing_key in INVENTORY_EVENT_TYPES]


async def _all_published(shop: Shop) -> None:
    async def unsent() -> int:
        return int(await shop.orders.value("SELECT count(*) FROM outbox WHERE sent_at IS NULL"))

    await eventually(unsent, lambda left: left == 0)
