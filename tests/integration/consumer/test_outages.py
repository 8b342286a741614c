"""Dependencies and the broker become unavailable: no event is lost, and none is applied twice."""

from proto.events import DEAD_LETTER_QUEUE, INVENTORY_QUEUE
from tests.integration.environment import (
    Environment,
    consumer_count,
    management,
    publish_probe,
    put,
    queued_messages,
    ready,
    take_messages,
)
from tests.support.infrastructure import Infrastructure
from tests.support.services import producer_running
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually


async def test_while_inventory_is_unavailable_messages_stay_unacked_and_are_handled_after(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with proxied(environment.inventory.address) as (proxy, address):
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        async with environment.consuming(inventory=address), management(environment.broker) as page:

            async def unacked() -> int:
                found = await page.get("queues", INVENTORY_QUEUE)
                return int(found.get("messages_unacknowledged", 0))

            await eventually(unacked, lambda count: count == 5)
            assert await environment.statuses(placed, wait=0) == {"PENDING"}
            await proxy.resume()
            assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await ready(environment.broker) == 0
    assert await ready(environment.broker, DEAD_LETTER_QUEUE) == 0


async def test_while_the_order_service_is_unavailable_orders_whose_stock_is_deducted_stay_pending(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with proxied(environment.orders.address) as (proxy, address):
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        async with environment.consuming(orders=address):
            await eventually(lambda: environment.stock(product), lambda stock: stock < 100)
            assert await environment.statuses(placed, wait=0) == {"PENDING"}
            await proxy.resume()
            assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.movements(product) == [100] + [-1] * 5
    assert await ready(environment.broker) == 0


async def test_a_batch_whose_connection_was_killed_is_delivered_again_and_applied_once(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with (
        proxied(environment.orders.address) as (proxy, address),
        proxied(environment.broker.url) as (broker, url),
        environment.consuming(orders=address, broker_url=url),
        management(environment.broker) as page,
    ):
        assert await environment.statuses(await environment.place({product: 1})) == {"CONFIRMED"}
        proxy.pause()
        placed = await environment.place({product: 1}, times=5)
        await proxy.holding()  # stock is deducted, and the settlements hang
        await page.kill("consumer_service")

        async def connections() -> int:
            return broker.accepted

        await eventually(connections, lambda count: count == 2)
        await proxy.resume()
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.movements(product) == [100] + [-1] * 6
    assert await ready(environment.broker) == 0


async def test_the_consumer_reconnects_after_the_broker_was_unavailable(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with (
        proxied(environment.broker.url) as (proxy, url),
        environment.consuming(broker_url=url),
    ):
        placed = await environment.place({product: 1}, times=5)
        assert await environment.statuses(placed) == {"CONFIRMED"}
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        await proxy.resume()
        assert await environment.statuses(placed) == {"CONFIRMED"}


async def test_however_often_the_consumers_connection_drops_nothing_is_lost_or_applied_twice(
    environment: Environment,
) -> None:
    """The connection drops while batches are in progress, each time at another moment."""
    product = await environment.product(1000)
    async with (
        proxied(environment.broker.url) as (proxy, url),
        environment.consuming(broker_url=url, batch_max_items=10),
    ):
        placed, poison = [], []
        for _ in range(6):
            placed += await environment.place({product: 1}, times=50)
            poison += await put(environment.broker, *[b"no JSON"] * 5)
            before = len(await environment.movements(product))

            async def moved(before: int = before) -> int:
                return len(await environment.movements(product)) - before

            await eventually(moved, every=0)
            proxy.drop()
        assert await environment.statuses(placed) == {"CONFIRMED"}

        async def dead_letters() -> set[str]:
            return set(await queued_messages(environment.broker, DEAD_LETTER_QUEUE))

        await eventually(dead_letters, lambda found: found == set(poison))
    assert await environment.stock(product) == 1000 - 300
    assert await ready(environment.broker) == 0


async def test_the_consumer_consumes_again_after_its_queue_was_deleted(
    environment: Environment, consumer: str
) -> None:
    async with management(environment.broker) as page:
        await page.delete("queues", INVENTORY_QUEUE)
        await eventually(lambda: page.get("queues", INVENTORY_QUEUE))
    await eventually(lambda: consumer_count(environment.broker))
    placed = await environment.place({await environment.product(): 1})
    assert await environment.statuses(placed) == {"CONFIRMED"}


async def test_a_consumer_started_before_the_topology_consumes_once_it_exists(
    environment: Environment, infrastructure: Infrastructure
) -> None:
    product = await environment.product(10)
    async with (
        infrastructure.virtual_host() as fresh,
        environment.consuming(broker_url=fresh.url),
        producer_running(fresh.url) as (_, stub),
    ):
        await publish_probe(stub)
        (placed,) = await environment.place({product: 4})
        await environment.queued(1)
        await put(fresh, *await take_messages(environment.broker))
        assert await environment.statuses([placed]) == {"CONFIRMED"}
