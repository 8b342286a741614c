"""A broker that fails in every way while orders come in."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from proto.events import DEAD_LETTER_QUEUE, EXCHANGE, INVENTORY_QUEUE, ORDER_CREATED
from tests.faults import queues
from tests.faults.cluster import cluster
from tests.faults.conftest import Start, left_clean
from tests.faults.ground import Ground, ground
from tests.faults.harness import RECOVERY_SECONDS, START_SECONDS, Shop, shop_running
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import eventually

DOWN_SECONDS = 60.0
ALARM_SECONDS = 70.0
FULL_SECONDS = 5.0
NODE_DOWN_SECONDS = 5.0

_HELD_BACK = """
SELECT count(*) FROM outbox WHERE sent_at IS NULL AND created_at < now() - interval '2 seconds'
"""
_SINCE = "SELECT DISTINCT status FROM orders WHERE created_at > $1"
_REFUSED = "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND last_error LIKE 'NACKED%'"
# A consumer that goes on settles orders within milliseconds after their events were sent.
_LOST = """
SELECT count(*) FROM orders JOIN outbox ON order_id = orders.id AND type = 'order.created'
WHERE status = 'PENDING' AND sent_at < now() - interval '2 seconds'
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("broker") / "run") as standing:
        yield standing


@pytest_asyncio.fixture(scope="module")
async def hurt(own: Ground, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with shop_running(own.infrastructure, tmp_path_factory.mktemp("shop")) as shop:
        yield shop
        await left_clean(shop)


@pytest_asyncio.fixture(scope="module")
async def regulars(hurt: Shop, seed: str) -> Load:
    return await Load.of(hurt, f"{seed} broker", buyers=4)


@pytest.fixture
def buyers(regulars: Load, request: pytest.FixtureRequest) -> Load:
    regulars.begin(request.node.name)
    return regulars


@pytest.mark.whole_matrix
async def test_the_broker_is_killed_and_restarted(own: Ground, hurt: Shop, buyers: Load) -> None:
    accepted = len(buyers.accepted)
    async with buyers.going_on():
        await own.kill("rabbitmq")
        healed_at = time.monotonic()
    assert len(buyers.accepted) > accepted
    assert await broken(hurt, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_the_broker_is_down_for_a_minute_and_orders_are_accepted_all_the_time(
    own: Ground, hurt: Shop, buyers: Load
) -> None:
    refusals = buyers.refusals()
    async with buyers.going_on():
        async with own.down("rabbitmq"), _nothing_published(hurt, buyers):
            await asyncio.sleep(DOWN_SECONDS)
        healed_at = time.monotonic()
        assert buyers.refusals() == refusals
    assert await broken(hurt, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_the_broker_s_disk_is_full(own: Ground, hurt: Shop, buyers: Load) -> None:
    async with buyers.going_on():
        await own.rabbitmqctl("set_disk_free_limit", "1000000GB")
        try:
            async with _nothing_published(hurt, buyers):
                await asyncio.sleep(ALARM_SECONDS)
        finally:
            await own.rabbitmqctl("set_disk_free_limit", "50MB")
        healed_at = time.monotonic()
    assert await broken(hurt, buyers, healed_at) == []


@asynccontextmanager
async def _nothing_published(shop: Shop, load: Load) -> AsyncIterator[None]:
    """Orders are accepted inside the block and none of their events gets out; fails if not so."""

    async def held_back() -> bool:
        return bool(await shop.orders.value(_HELD_BACK))

    await eventually(held_back)
    since, accepted = await shop.orders.value("SELECT now()"), len(load.accepted)
    yield
    assert len(load.accepted) > accepted
    stored = await shop.orders.rows(_SINCE, since)
    assert {row["status"] for row in stored} <= {"PENDING", "CANCELLED"}
    assert "PENDING" in {row["status"] for row in stored}


@pytest.mark.whole_matrix
async def test_a_binding_is_deleted_by_hand(start: Start, seed: str) -> None:
    """The events that no queue of the consumer's took are published again by the sweeper."""
    async with start(ORDER_REOFFER_SECONDS=None) as shop:  # as it is by default
        load = await Load.of(shop, f"{seed} binding", buyers=4)
        name = quote(shop.broker.name, safe="")
        path = f"/api/bindings/{name}/e/{EXCHANGE}/q/{INVENTORY_QUEUE}/{ORDER_CREATED}"
        async with load.going_on(), shop.broker.management() as api:

            async def lost() -> int:
                await api.delete(path)  # again, if it was declared before an order came
                return int(await shop.orders.value(_LOST))

            async def bound() -> int:
                return (await api.get(path)).status_code

            await eventually(lost, within=60, every=0.2)
            await eventually(bound, lambda status: status == 200)
            healed_at = time.monotonic()
        assert await broken(shop, load, healed_at) == []
        assert await shop.orders.value("SELECT max(offers) FROM orders") > 0


@asynccontextmanager
async def _full(shop: Shop, queue: str) -> AsyncIterator[None]:
    """A queue that takes no more inside the block, and any number after it."""
    policy = f"/api/policies/{quote(shop.broker.name, safe='')}/full"
    definition = {"max-length": 1, "overflow": "reject-publish"}
    body = {"pattern": f"^{queue}$", "definition": definition, "apply-to": "queues"}
    async with shop.broker.management() as api:
        (await api.put(policy, json=body)).raise_for_status()
        try:
            await queues.refuses(shop.broker, queue)
            yield
        finally:
            (await api.delete(policy)).raise_for_status()


@pytest.mark.one_of("broker")
async def test_the_dead_letter_queue_is_full(shop: Shop, load: Load) -> None:
    consumer = shop.children["consumer_service"]
    logged = len(consumer.log())
    letters = [str(uuid.uuid4()) for _ in range(5)]

    async def dead() -> set[str]:
        return await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)

    async def refused() -> bool:
        return any(letter in consumer.log()[logged:] for letter in letters)

    async with load.going_on():
        async with _full(shop, DEAD_LETTER_QUEUE):
            await queues.deliver_all(shop.broker, [(letter, b"{") for letter in letters])
            await eventually(refused)
            await asyncio.sleep(FULL_SECONDS)
            assert not await dead() & set(letters)
        healed_at = time.monotonic()
    assert await broken(shop, load, healed_at) == []
    await eventually(dead, lambda found: found >= set(letters))


@pytest.mark.one_of("broker")
async def test_the_consumer_s_queue_is_full(shop: Shop, load: Load) -> None:
    async def refused() -> int:
        return int(await shop.orders.value(_REFUSED))

    consumer = shop.children["consumer_service"]
    async with consumer.away(), load.going_on(), _full(shop, INVENTORY_QUEUE):
        await eventually(refused)
        await asyncio.sleep(FULL_SECONDS)
    healed_at = time.monotonic() + START_SECONDS
    assert await broken(shop, load, healed_at) == []


@pytest.mark.whole_matrix
async def test_the_consumer_is_past_its_ack_timeout(own: Ground, hurt: Shop, buyers: Load) -> None:
    consumer = hurt.children["consumer_service"]
    shorter = "application:set_env(rabbit, consumer_timeout, 3000)"
    await own.rabbitmqctl("eval", f"{shorter}.")
    try:
        async with consumer.away():
            logged = len(consumer.log())

        async def cut_off() -> bool:
            return '"broker away"' in consumer.log()[logged:]

        # Orders come in all the time, and none of them gets its stock.
        async with buyers.going_on():
            async with hurt.inventory.locked("reservations"):
                await eventually(cut_off, within=100)  # the broker looks once a minute
            healed_at = time.monotonic()
    finally:
        await own.rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    assert await broken(hurt, buyers, healed_at) == []


@pytest.mark.whole_matrix
@pytest.mark.timeout(900)
async def test_one_of_three_nodes_dies_and_comes_back(
    infrastructure: Infrastructure, tmp_path: Path, seed: str
) -> None:
    async with (
        cluster(tmp_path) as (broker, nodes),
        shop_running(infrastructure, tmp_path, broker=broker) as shop,
    ):
        load = await Load.of(shop, f"{seed} cluster", buyers=4)
        await load.place(2)
        async with load.going_on():
            await nodes[0].kill()
            killed_at = time.monotonic()
            await asyncio.sleep(NODE_DOWN_SECONDS)
        await _answered(shop, killed_at)  # with two nodes as well as with three
        async with load.going_on():
            await nodes[0].start()
            await nodes[0].up()
            healed_at = time.monotonic()
        assert await broken(shop, load, healed_at, audited=False) == []


async def _answered(shop: Shop, since: float) -> None:
    """Return once no order waits; what only concerns the lost node's audit queue may."""

    async def waiting() -> int:
        statement = "SELECT count(*) FROM orders WHERE next_offer_at IS NOT NULL"
        return int(await shop.orders.value(statement))

    within = since + RECOVERY_SECONDS - time.monotonic()
    await eventually(waiting, lambda left: left == 0, within=within)
