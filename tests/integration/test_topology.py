"""Exchanges, queues and bindings in a real broker, as the producer declares them."""

from collections.abc import AsyncIterator

import aio_pika
import pytest
import pytest_asyncio
import structlog
from aiormq.exceptions import ChannelPreconditionFailed

from producer_service import publisher
from producer_service.topology import TOPOLOGY
from proto.events import (
    AUDIT_QUEUE,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    EXCHANGE,
    INVENTORY_QUEUE,
    ORDER_CANCELLED,
    ORDER_CREATED,
)
from service_kit.errors import Unavailable
from service_kit.rabbitmq.topology import declare_topology
from tests.integration.environment import (
    Management,
    amqp_channel,
    event,
    management,
    publish,
    publish_probe,
    put,
    ready,
)
from tests.support.infrastructure import Broker, Infrastructure
from tests.support.services import producer_running
from tests.support.waiting import eventually

BINDINGS = {
    (EXCHANGE, INVENTORY_QUEUE, ORDER_CREATED),
    (EXCHANGE, INVENTORY_QUEUE, ORDER_CANCELLED),
    (EXCHANGE, AUDIT_QUEUE, "order.created"),
    (EXCHANGE, AUDIT_QUEUE, "order.confirmed"),
    (EXCHANGE, AUDIT_QUEUE, "order.rejected"),
    (EXCHANGE, AUDIT_QUEUE, "order.cancelled"),
    (DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, "#"),
}


@pytest_asyncio.fixture(scope="module")
async def page(broker: Broker) -> AsyncIterator[Management]:
    """The management page while a producer runs that declares five times a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "REDECLARE_SECONDS", 0.2)
        async with producer_running(broker.url), management(broker) as found:
            await eventually(lambda: found.get("queues", AUDIT_QUEUE))
            await eventually(found.bindings, lambda bindings: len(bindings) == len(BINDINGS))
            yield found


@pytest.mark.parametrize("name", [EXCHANGE, DEAD_LETTER_EXCHANGE])
async def test_the_exchanges_are_durable_topics(page: Management, name: str) -> None:
    found = await page.get("exchanges", name)
    assert (found["type"], found["durable"], found["auto_delete"]) == ("topic", True, False)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            INVENTORY_QUEUE,
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 100,
                "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        ),
        (DEAD_LETTER_QUEUE, {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}),
        (AUDIT_QUEUE, {"x-max-length": 10_000, "x-overflow": "drop-head"}),
    ],
)
async def test_a_queue_is_durable_and_has_its_arguments(
    page: Management, name: str, arguments: dict[str, str | int]
) -> None:
    found = await page.get("queues", name)
    assert found["durable"]
    assert arguments.items() <= found["arguments"].items()


async def test_the_queues_are_bound_to_the_types_of_their_events(page: Management) -> None:
    assert await page.bindings() == BINDINGS


async def test_declaring_again_changes_nothing(broker: Broker, page: Management) -> None:
    await put(broker, b"{}")
    before = await ready(broker)
    async with amqp_channel(broker) as channel:
        await declare_topology(channel, TOPOLOGY)
    assert await page.bindings() == BINDINGS
    assert await ready(broker) == before > 0


async def test_a_queue_that_exists_with_other_arguments_is_an_error_that_names_it(
    infrastructure: Infrastructure,
) -> None:
    async with infrastructure.virtual_host() as broker, amqp_channel(broker) as channel:
        await channel.declare_queue(INVENTORY_QUEUE, durable=True)
        with structlog.testing.capture_logs() as logged, pytest.raises(ChannelPreconditionFailed):
            await declare_topology(channel, TOPOLOGY)
    (entry,) = logged
    assert (entry["log_level"], entry["queue"]) == ("error", INVENTORY_QUEUE)
    assert entry["event"] == "queue exists with other arguments"


async def test_a_binding_deleted_by_hand_is_declared_again(
    broker: Broker, page: Management
) -> None:
    async with amqp_channel(broker) as channel:
        await (await channel.get_queue(INVENTORY_QUEUE)).unbind(EXCHANGE, ORDER_CREATED)
    await eventually(page.bindings, lambda bindings: bindings == BINDINGS)


@pytest.mark.parametrize("name", [INVENTORY_QUEUE, DEAD_LETTER_QUEUE, AUDIT_QUEUE])
async def test_a_queue_deleted_by_hand_is_declared_again_with_its_bindings(
    page: Management, name: str
) -> None:
    arguments = (await page.get("queues", name))["arguments"]
    await page.delete("queues", name)
    await eventually(page.bindings, lambda bindings: bindings == BINDINGS)
    assert (await page.get("queues", name))["arguments"] == arguments


async def test_an_exchange_deleted_by_hand_is_declared_again_with_its_bindings(
    page: Management,
) -> None:
    await page.delete("exchanges", EXCHANGE)
    await eventually(page.bindings, lambda bindings: bindings == BINDINGS)


async def test_a_message_over_the_delivery_limit_becomes_a_dead_letter(
    broker: Broker, page: Management
) -> None:
    """A lower limit than the declared one keeps the test short."""
    await page.put(
        "policies",
        "impatient",
        pattern=f"^{INVENTORY_QUEUE}$",
        definition={"delivery-limit": 1},
        **{"apply-to": "queues"},
    )
    async with amqp_channel(broker) as channel:
        queue = await channel.get_queue(INVENTORY_QUEUE)
        await queue.purge()
        await put(broker, b"{}")

        async def requeue() -> int:
            message = await queue.get(fail=False)
            if isinstance(message, aio_pika.abc.AbstractIncomingMessage):
                await message.reject(requeue=True)
            return await ready(broker, DEAD_LETTER_QUEUE)

        await eventually(requeue)
    await page.delete("policies", "impatient")


async def test_while_a_queue_has_other_arguments_nothing_is_published(
    infrastructure: Infrastructure,
) -> None:
    """An older release may have declared it; an operator must delete it."""
    async with infrastructure.virtual_host() as fresh, management(fresh) as found:
        await found.put("queues", AUDIT_QUEUE, durable=True, arguments={})
        async with producer_running(fresh.url) as (_, stub):
            await eventually(lambda: found.get("queues", INVENTORY_QUEUE))
            with pytest.raises(Unavailable):
                await publish(stub, event())
            await found.delete("queues", AUDIT_QUEUE)
            await publish_probe(stub)
