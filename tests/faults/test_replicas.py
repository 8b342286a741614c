"""Two replicas of each service: they share the work, and one may crash.

One relay leads at a time, so the events of an order are published in their order. Two consumers
may then overtake each other: a cancellation that arrives first leaves a tombstone, so that the
order deducts nothing.
"""

import json
import time
from collections.abc import Collection

import pytest

from proto.events import AUDIT_QUEUE, INVENTORY_QUEUE, ORDER_CANCELLED, ORDER_CREATED
from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.conftest import StartShop
from tests.faults.shop.shop import START_SECONDS, Shop
from tests.faults.shop.topology import SERVICES
from tests.support import queues
from tests.support.waiting import eventually

TWO = dict.fromkeys(SERVICES, 2)


@pytest.mark.whole_matrix
async def test_two_replicas_of_each_service_share_the_work_and_one_of_each_may_crash(
    start_own_shop: StartShop, seed: str
) -> None:
    async with start_own_shop(replicas=TWO) as shop:
        buyers = await Buyers.register(shop, f"{seed} replicas")
        buyers.gateway_urls, buyers.gateway_fails = shop.gateway_urls, True
        await buyers.place_orders(10)
        assert await violations_after(shop, buyers, time.monotonic(), faults=0) == []
        rng = buyers.random_for("kills")
        for service in rng.sample(SERVICES, k=len(SERVICES)):
            victim = rng.choice((service, f"{service}-2"))
            starts = shop.processes[victim].starts
            async with buyers.ordering():
                assert shop.processes[victim].kill()
                await shop.processes[victim].wait_for_restart(starts)
                restarted_at = time.monotonic()
            await shop.wait_until_ready()
        healed_at = restarted_at + START_SECONDS
        assert await violations_after(shop, buyers, healed_at, faults=len(SERVICES)) == []
        logs = [shop.processes[name].log() for name in ("consumer_service", "consumer_service-2")]
        assert all('"events handled"' in log for log in logs)


@pytest.mark.whole_matrix
async def test_one_relay_is_the_leader_and_another_takes_over(
    start_own_shop: StartShop, seed: str
) -> None:
    async with start_own_shop(replicas={"order_service": 2}) as shop:
        buyers = await Buyers.register(shop, f"{seed} relays")
        relays = [shop.processes[name] for name in ("order_service", "order_service-2")]

        async def acquisitions() -> list[int]:
            return [relay.log().count('"relay acquired leadership"') for relay in relays]

        leader = (await eventually(acquisitions, any)).index(1)
        await buyers.place_orders(5)
        assert sum(await acquisitions()) == 1
        async with buyers.ordering():
            await relays[leader].kill_without_restart()
            await eventually(acquisitions, lambda found: found[1 - leader] == 1)
            healed_at = time.monotonic()
        await relays[leader].start()
        assert await violations_after(shop, buyers, healed_at) == []


async def test_a_cancellation_that_arrives_before_its_order_deducts_no_stock(
    shop: Shop, buyers: Buyers
) -> None:
    before = set(buyers.cancelled)
    async with shop.processes["consumer_service"].stopped():
        buyers.cancel_probability = 1.0
        await buyers.place_orders(1)
        orders = buyers.cancelled - before
        assert orders
        await _deliver_cancellations_first(shop, orders)
    healed_at = time.monotonic() + START_SECONDS

    assert await violations_after(shop, buyers, healed_at, faults=len(orders)) == []
    for order in orders:
        assert await shop.inventory.rows(
            "SELECT state FROM reservations WHERE order_id = $1", order
        ) == [{"state": "CANCELLED"}]
        assert not await shop.inventory.value(
            "SELECT count(*) FROM stock_movements WHERE order_id = $1", order
        )


async def _deliver_cancellations_first(shop: Shop, orders: Collection[str]) -> None:
    """Put the queued events of these orders into the wrong order."""

    async def events() -> dict[str, dict[str, queues.QueuedMessage]]:
        found: dict[str, dict[str, queues.QueuedMessage]] = {}
        for message in await queues.queued_messages(shop.broker, AUDIT_QUEUE):
            order = json.loads(message.body)["subject"]
            if order in orders:
                found.setdefault(order, {})[message.routing_key] = message
        return found

    both = {ORDER_CREATED, ORDER_CANCELLED}
    found = await eventually(
        events, lambda found: [set(each) for each in found.values()] == [both] * len(orders)
    )
    await queues.purge(shop.broker, INVENTORY_QUEUE)
    await queues.deliver_all(
        shop.broker,
        (
            (found[order][kind].message_id, found[order][kind].body)
            for kind in (ORDER_CANCELLED, ORDER_CREATED)
            for order in orders
        ),
    )
