"""A broker that fails in every way while orders come in."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from proto.events import DEAD_LETTER_QUEUE, EXCHANGE, INVENTORY_QUEUE, ORDER_CREATED
from tests.faults import queues, tally
from tests.faults.cluster import cluster
from tests.faults.ground import Ground, ground
from tests.faults.harness import RECOVERY_SECONDS, Shop, shop_running
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import eventually

pytestmark = pytest.mark.whole_matrix

DOWN_SECONDS = 60.0
ALARM_SECONDS = 70.0
REOFFER_SECONDS = "3"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("broker") / "run") as standing:
        yield standing


@pytest_asyncio.fixture(scope="module")
async def hurt(own: Ground, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with shop_running(own.infrastructure, tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module")
async def buyers(hurt: Shop, seed: str) -> Load:
    return await Load.of(hurt, f"{seed} broker", buyers=4)


async def test_the_broker_is_killed_and_restarted(own: Ground, hurt: Shop, buyers: Load) -> None:
    async with buyers.going_on():
        await own.kill("rabbitmq")
        await asyncio.sleep(2)
    assert await broken(hurt, buyers) == []
    tally.count(buyers, faults=1)


async def test_the_broker_is_down_for_a_minute_and_orders_are_accepted_all_the_time(
    own: Ground, hurt: Shop, buyers: Load
) -> None:
    refusals = buyers.refusals()
    async with buyers.going_on():
        async with own.down("rabbitmq"):
            await asyncio.sleep(DOWN_SECONDS)
        assert buyers.refusals() == refusals
    assert await broken(hurt, buyers) == []
    tally.count(buyers, faults=1)


async def test_the_broker_s_disk_is_full(own: Ground, hurt: Shop, buyers: Load) -> None:
    async with buyers.going_on():
        await own.rabbitmqctl("set_disk_free_limit", "1000000GB")
        try:
            await asyncio.sleep(ALARM_SECONDS)
        finally:
            await own.rabbitmqctl("set_disk_free_limit", "50MB")
    assert await broken(hurt, buyers) == []
    tally.count(buyers, faults=1)


async def test_a_binding_is_deleted_by_hand(own: Ground, tmp_path: Path, seed: str) -> None:
    async with shop_running(
        own.infrastructure, tmp_path, ORDER_REOFFER_SECONDS=REOFFER_SECONDS
    ) as shop:
        load = await Load.of(shop, f"{seed} binding", buyers=4)
        name = quote(shop.broker.name, safe="")
        path = f"/api/bindings/{name}/e/{EXCHANGE}/q/{INVENTORY_QUEUE}/{ORDER_CREATED}"
        async with load.going_on(), shop.broker.management() as api:
            await asyncio.sleep(0.5)
            (await api.delete(path)).raise_for_status()

            async def bound() -> int:
                return (await api.get(path)).status_code

            await eventually(bound, lambda status: status == 200)
        assert await broken(shop, load) == []
        assert await shop.orders.value("SELECT max(offers) FROM orders") > 0
        tally.count(load, faults=1)


@asynccontextmanager
async def _full(shop: Shop, queue: str) -> AsyncIterator[None]:
    """A queue that takes one message at most inside the block, and any number after it."""
    policy = f"/api/policies/{quote(shop.broker.name, safe='')}/full"
    definition = {"max-length": 1, "overflow": "reject-publish"}
    body = {"pattern": f"^{queue}$", "definition": definition, "apply-to": "queues"}
    async with shop.broker.management() as api:
        (await api.put(policy, json=body)).raise_for_status()
        try:
            yield
        finally:
            (await api.delete(policy)).raise_for_status()


async def test_the_dead_letter_queue_is_full(hurt: Shop, buyers: Load) -> None:
    letters = [str(uuid.uuid4()) for _ in range(5)]
    await queues.deliver(hurt.broker, b"{", str(uuid.uuid4()))
    async with buyers.going_on(), _full(hurt, DEAD_LETTER_QUEUE):
        await asyncio.sleep(1)
        await queues.deliver_all(hurt.broker, [(letter, b"{") for letter in letters])
        await asyncio.sleep(8)
        found = await queues.message_ids(hurt.broker, DEAD_LETTER_QUEUE)
        assert not found >= set(letters)
    assert await broken(hurt, buyers) == []
    assert await queues.message_ids(hurt.broker, DEAD_LETTER_QUEUE) >= set(letters)
    tally.count(buyers, faults=1)


async def test_the_consumer_s_queue_is_full(hurt: Shop, buyers: Load) -> None:
    consumer = hurt.children["consumer_service"]
    await consumer.stop()
    async with buyers.going_on(), _full(hurt, INVENTORY_QUEUE):
        await asyncio.sleep(8)
    assert "NACKED" in hurt.children["order_service"].log()
    await consumer.start()
    assert await broken(hurt, buyers) == []
    tally.count(buyers, faults=1)


async def test_the_consumer_is_past_its_ack_timeout(own: Ground, hurt: Shop, buyers: Load) -> None:
    consumer = hurt.children["consumer_service"]
    shorter = "application:set_env(rabbit, consumer_timeout, 3000)"
    await own.rabbitmqctl("eval", f"{shorter}.")
    try:
        await consumer.stop()
        await consumer.start()
        logged = len(consumer.log())

        async def cut_off() -> bool:
            return '"broker away"' in consumer.log()[logged:]

        # Orders come in all the time, and none of them gets its stock.
        async with buyers.going_on(), hurt.inventory.locked("reservations"):
            await eventually(cut_off, within=100)  # the broker looks once a minute
    finally:
        await own.rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    assert await broken(hurt, buyers) == []
    tally.count(buyers, faults=1)


async def test_one_of_three_nodes_dies_and_comes_back(
    infrastructure: Infrastructure, tmp_path: Path, seed: str
) -> None:
    async with (
        cluster(tmp_path) as (broker, nodes),
        shop_running(infrastructure, tmp_path, broker=broker) as shop,
    ):
        load = await Load.of(shop, f"{seed} cluster", buyers=4)
        async with load.going_on():
            await asyncio.sleep(1)
            await nodes[0].kill()
            await asyncio.sleep(5)
        await _answered(shop)  # with two nodes as well as with three
        async with load.going_on():
            await nodes[0].start()
            await nodes[0].up()
        assert await broken(shop, load, audited=False) == []
        tally.count(load, faults=1)


async def _answered(shop: Shop) -> None:
    """Return once no order waits; what only concerns the lost node's audit queue may."""

    async def waiting() -> int:
        statement = "SELECT count(*) FROM orders WHERE next_offer_at IS NOT NULL"
        return int(await shop.orders.value(statement))

    await eventually(waiting, lambda left: left == 0, within=RECOVERY_SECONDS)
