"""Two of everything: copies share the work, and one may die.

The events of an order keep their order up to the queue, because one relay leads at a time. From
there two consumers may overtake each other: a cancellation that comes first leaves a tombstone,
so it does not matter.
"""

import json
import time
from collections.abc import Collection

import pytest

from proto.events import AUDIT_QUEUE, INVENTORY_QUEUE, ORDER_CANCELLED, ORDER_CREATED
from tests.faults import queues
from tests.faults.conftest import Start
from tests.faults.harness import SERVICES, START_SECONDS, Shop
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.support.waiting import eventually

TWO = dict.fromkeys(SERVICES, 2)


@pytest.mark.whole_matrix
async def test_two_of_everything_share_the_work_and_one_of_each_may_die(
    start: Start, seed: str
) -> None:
    async with start(copies=TWO) as shop:
        load = await Load.of(shop, f"{seed} copies")
        load.gateways, load.gateway_dies = shop.gateway_urls, True
        await load.place(10)
        assert await broken(shop, load, time.monotonic(), faults=0) == []
        chance = load.chance("killer")
        for service in chance.sample(SERVICES, k=len(SERVICES)):
            victim = chance.choice((service, f"{service}-2"))
            starts = shop.children[victim].starts
            async with load.going_on():
                assert shop.children[victim].kill()
                await shop.children[victim].restarted(starts)
                restarted_at = time.monotonic()
            await shop.ready()
        healed_at = restarted_at + START_SECONDS
        assert await broken(shop, load, healed_at, faults=len(SERVICES)) == []
        logs = [shop.children[name].log() for name in ("consumer_service", "consumer_service-2")]
        assert all('"events handled"' in log for log in logs)


@pytest.mark.whole_matrix
async def test_one_relay_leads_and_another_takes_over(start: Start, seed: str) -> None:
    async with start(copies={"order_service": 2}) as shop:
        load = await Load.of(shop, f"{seed} relays")
        relays = [shop.children[name] for name in ("order_service", "order_service-2")]

        async def leaders() -> list[int]:
            return [relay.log().count('"relay leads"') for relay in relays]

        leading = (await eventually(leaders, any)).index(1)
        await load.place(5)
        assert sum(await leaders()) == 1
        async with load.going_on():
            await relays[leading].kill_for_good()
            await eventually(leaders, lambda found: found[1 - leading] == 1)
            healed_at = time.monotonic()
        await relays[leading].start()
        assert await broken(shop, load, healed_at) == []


async def test_a_cancellation_that_overtakes_its_order_takes_no_stock(
    shop: Shop, load: Load
) -> None:
    before = set(load.cancelled)
    async with shop.children["consumer_service"].away():
        load.cancel = 1.0
        await load.place(1)
        orders = load.cancelled - before
        assert orders
        await _deliver_cancellations_first(shop, orders)
    healed_at = time.monotonic() + START_SECONDS

    assert await broken(shop, load, healed_at, faults=len(orders)) == []
    for order in orders:
        assert await shop.inventory.rows(
            "SELECT state FROM reservations WHERE order_id = $1", order
        ) == [{"state": "CANCELLED"}]
        assert not await shop.inventory.value(
            "SELECT count(*) FROM stock_movements WHERE order_id = $1", order
        )


async def _deliver_cancellations_first(shop: Shop, orders: Collection[str]) -> None:
    """Put the events of these orders, which wait in the queue, into the wrong order."""

    async def events() -> dict[str, dict[str, queues.Letter]]:
        found: dict[str, dict[str, queues.Letter]] = {}
        for message in await queues.queued_messages(shop.broker, AUDIT_QUEUE):
            order = json.loads(message.body)["subject"]
            if order in orders:
                found.setdefault(order, {})[message.routing_key] = message
        return found

    wanted = {ORDER_CREATED, ORDER_CANCELLED}
    found = await eventually(
        events, lambda found: [set(each) for each in found.values()] == [wanted] * len(orders)
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
