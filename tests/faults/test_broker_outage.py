"""A broker that is killed, down, full, or closes its consumer, while orders are placed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.injection.faulty_infrastructure import FaultyInfrastructure
from tests.faults.shop.shop import Shop
from tests.support.waiting import eventually

DOWN_SECONDS = 60.0
ALARM_SECONDS = 70.0
CUT_OFF_SECONDS = 100.0
"""The broker checks its ack timeouts once a minute."""

_DELAYED = """
SELECT count(*) FROM outbox WHERE sent_at IS NULL AND created_at < now() - interval '2 seconds'
"""
_SINCE = "SELECT DISTINCT status FROM orders WHERE created_at > $1"


@pytest_asyncio.fixture(scope="module")
async def registered_buyers(shop_under_fault: Shop, seed: str) -> Buyers:
    return await Buyers.register(shop_under_fault, f"{seed} broker", buyers=4)


@pytest.mark.whole_matrix
async def test_the_broker_is_killed_and_restarted(
    faulty_infrastructure: FaultyInfrastructure, shop_under_fault: Shop, buyers: Buyers
) -> None:
    accepted = len(buyers.accepted)
    async with buyers.ordering():
        await faulty_infrastructure.kill("rabbitmq")
        healed_at = time.monotonic()
    assert len(buyers.accepted) > accepted
    assert await violations_after(shop_under_fault, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_orders_are_accepted_while_the_broker_is_down_for_a_minute(
    faulty_infrastructure: FaultyInfrastructure, shop_under_fault: Shop, buyers: Buyers
) -> None:
    refusals = buyers.failed_requests()
    async with buyers.ordering():
        async with (
            faulty_infrastructure.down("rabbitmq"),
            _nothing_published(shop_under_fault, buyers),
        ):
            await asyncio.sleep(DOWN_SECONDS)
        healed_at = time.monotonic()
        assert buyers.failed_requests() == refusals
    assert await violations_after(shop_under_fault, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_orders_are_accepted_while_the_disk_of_the_broker_is_full(
    faulty_infrastructure: FaultyInfrastructure, shop_under_fault: Shop, buyers: Buyers
) -> None:
    async with buyers.ordering():
        await faulty_infrastructure.rabbitmqctl("set_disk_free_limit", "1000000GB")
        try:
            async with _nothing_published(shop_under_fault, buyers):
                await asyncio.sleep(ALARM_SECONDS)
        finally:
            await faulty_infrastructure.rabbitmqctl("set_disk_free_limit", "50MB")
        healed_at = time.monotonic()
    assert await violations_after(shop_under_fault, buyers, healed_at) == []


@asynccontextmanager
async def _nothing_published(shop: Shop, buyers: Buyers) -> AsyncIterator[None]:
    """Inside the block orders are accepted and none of their events is published; asserts both."""

    async def delayed() -> bool:
        return bool(await shop.orders.value(_DELAYED))

    await eventually(delayed)
    since, accepted = await shop.orders.value("SELECT now()"), len(buyers.accepted)
    yield
    assert len(buyers.accepted) > accepted
    stored = await shop.orders.rows(_SINCE, since)
    assert {row["status"] for row in stored} <= {"PENDING", "CANCELLED"}
    assert "PENDING" in {row["status"] for row in stored}


@pytest.mark.whole_matrix
async def test_the_broker_closes_a_consumer_that_does_not_ack_in_time(
    faulty_infrastructure: FaultyInfrastructure, shop_under_fault: Shop, buyers: Buyers
) -> None:
    consumer = shop_under_fault.processes["consumer_service"]
    shorter = "application:set_env(rabbit, consumer_timeout, 3000)"
    await faulty_infrastructure.rabbitmqctl("eval", f"{shorter}.")
    try:
        async with consumer.stopped():
            logged = len(consumer.log())

        async def cut_off() -> bool:
            return '"broker connection lost"' in consumer.log()[logged:]

        # Orders are placed continuously, and no stock update can finish.
        async with buyers.ordering():
            async with shop_under_fault.inventory.locked("reservations"):
                await eventually(cut_off, within=CUT_OFF_SECONDS)
            healed_at = time.monotonic()
    finally:
        await faulty_infrastructure.rabbitmqctl(
            "eval", "application:set_env(rabbit, consumer_timeout, 1800000)."
        )
    assert await violations_after(shop_under_fault, buyers, healed_at) == []
