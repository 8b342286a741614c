"""Queues of the broker that are full or lose their binding, while orders are placed."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from proto.events import DEAD_LETTER_QUEUE, EXCHANGE, INVENTORY_QUEUE, ORDER_CREATED
from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.conftest import StartShop
from tests.faults.shop.shop import START_SECONDS, Shop
from tests.support import queues
from tests.support.waiting import eventually

FULL_SECONDS = 5.0

_REFUSED = "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND last_error LIKE 'NACKED%'"
# A running consumer settles orders within milliseconds after their events were sent.
_UNROUTED = """
SELECT count(*) FROM orders JOIN outbox ON order_id = orders.id AND type = 'order.created'
WHERE status = 'PENDING' AND sent_at < now() - interval '2 seconds'
"""


@pytest.mark.whole_matrix
async def test_a_binding_is_deleted_by_an_operator(start_own_shop: StartShop, seed: str) -> None:
    """Events that no queue of the consumer received are republished."""
    async with start_own_shop(ORDER_REPUBLISH_SECONDS=None) as shop:  # the default
        buyers = await Buyers.register(shop, f"{seed} binding", buyers=4)
        name = quote(shop.broker.name, safe="")
        path = f"/api/bindings/{name}/e/{EXCHANGE}/q/{INVENTORY_QUEUE}/{ORDER_CREATED}"
        async with buyers.ordering(), shop.broker.management() as api:

            async def lost() -> int:
                # Again, if the producer declared it before an order was placed.
                await api.delete(path)
                return int(await shop.orders.value(_UNROUTED))

            async def bound() -> int:
                return (await api.get(path)).status_code

            await eventually(lost, within=60, every=0.2)
            await eventually(bound, lambda status: status == 200)
            healed_at = time.monotonic()
        assert await violations_after(shop, buyers, healed_at) == []
        assert await shop.orders.value("SELECT max(republish_count) FROM orders") > 0


@asynccontextmanager
async def _full(shop: Shop, queue: str) -> AsyncIterator[None]:
    """The queue refuses messages inside the block."""
    policy = f"/api/policies/{quote(shop.broker.name, safe='')}/full"
    definition = {"max-length": 1, "overflow": "reject-publish"}
    body = {"pattern": f"^{queue}$", "definition": definition, "apply-to": "queues"}
    async with shop.broker.management() as api:
        (await api.put(policy, json=body)).raise_for_status()
        try:
            await queues.fill_until_refused(shop.broker, queue)
            yield
        finally:
            (await api.delete(policy)).raise_for_status()


@pytest.mark.one_of("broker")
async def test_the_dead_letter_queue_is_full(shop: Shop, buyers: Buyers) -> None:
    consumer = shop.processes["consumer_service"]
    logged = len(consumer.log())
    letters = [str(uuid.uuid4()) for _ in range(5)]

    async def dead() -> set[str]:
        return await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)

    async def refused() -> bool:
        return any(letter in consumer.log()[logged:] for letter in letters)

    async with buyers.ordering():
        async with _full(shop, DEAD_LETTER_QUEUE):
            await queues.deliver_all(shop.broker, [(letter, b"{") for letter in letters])
            await eventually(refused)
            await asyncio.sleep(FULL_SECONDS)
            assert not await dead() & set(letters)
        healed_at = time.monotonic()
    assert await violations_after(shop, buyers, healed_at) == []
    await eventually(dead, lambda found: found >= set(letters))


@pytest.mark.one_of("broker")
async def test_the_queue_of_the_consumer_is_full(shop: Shop, buyers: Buyers) -> None:
    async def refused() -> int:
        return int(await shop.orders.value(_REFUSED))

    consumer = shop.processes["consumer_service"]
    async with consumer.stopped(), buyers.ordering(), _full(shop, INVENTORY_QUEUE):
        await eventually(refused)
        await asyncio.sleep(FULL_SECONDS)
    healed_at = time.monotonic() + START_SECONDS
    assert await violations_after(shop, buyers, healed_at) == []
