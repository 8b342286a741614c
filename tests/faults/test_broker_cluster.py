"""A node of a broker cluster that is killed while orders are placed."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import RECOVERY_SECONDS, violations_after
from tests.faults.injection.rabbitmq_cluster import start_cluster
from tests.faults.shop.shop import Shop
from tests.faults.shop.start import start_shop
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import eventually

NODE_DOWN_SECONDS = 5.0


@pytest.mark.whole_matrix
@pytest.mark.timeout(900)
async def test_one_of_three_nodes_is_killed_and_returns(
    infrastructure: Infrastructure, tmp_path: Path, seed: str
) -> None:
    async with (
        start_cluster(tmp_path) as (broker, nodes),
        start_shop(infrastructure, tmp_path, broker=broker) as shop,
    ):
        buyers = await Buyers.register(shop, f"{seed} cluster", buyers=4)
        await buyers.place_orders(2)
        async with buyers.ordering():
            await nodes[0].kill()
            killed_at = time.monotonic()
            await asyncio.sleep(NODE_DOWN_SECONDS)
        await _wait_until_answered(shop, killed_at)  # with two nodes as well as with three
        async with buyers.ordering():
            await nodes[0].start()
            await nodes[0].wait_until_up()
            healed_at = time.monotonic()
        assert await violations_after(shop, buyers, healed_at, audit_queue_available=False) == []


async def _wait_until_answered(shop: Shop, since: float) -> None:
    """Return once no order waits for an answer; events for the stopped audit queue may wait."""

    async def unanswered() -> int:
        statement = "SELECT count(*) FROM orders WHERE next_republish_at IS NOT NULL"
        return int(await shop.orders.value(statement))

    within = since + RECOVERY_SECONDS - time.monotonic()
    await eventually(unanswered, lambda count: count == 0, within=within)
