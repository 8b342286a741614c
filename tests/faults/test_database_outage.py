"""A PostgreSQL that is killed or down while orders are placed."""

import asyncio
import time

import pytest
import pytest_asyncio

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.injection.faulty_infrastructure import FaultyInfrastructure
from tests.faults.shop.shop import Shop

DOWN_SECONDS = 10.0


@pytest_asyncio.fixture(scope="module")
async def registered_buyers(shop_under_fault: Shop, seed: str) -> Buyers:
    return await Buyers.register(shop_under_fault, f"{seed} database")


@pytest.mark.whole_matrix
async def test_the_database_is_killed_and_restarted(
    faulty_infrastructure: FaultyInfrastructure, shop_under_fault: Shop, buyers: Buyers
) -> None:
    refusals = buyers.failed_requests()
    async with buyers.ordering():
        await faulty_infrastructure.kill("postgres")
        healed_at = time.monotonic()
        assert buyers.failed_requests() > refusals
    assert await violations_after(shop_under_fault, buyers, healed_at) == []


@pytest.mark.whole_matrix
async def test_the_database_is_down_for_ten_seconds(
    faulty_infrastructure: FaultyInfrastructure, shop_under_fault: Shop, buyers: Buyers
) -> None:
    async with buyers.ordering():
        async with faulty_infrastructure.down("postgres"):
            refusals = buyers.failed_requests()
            await asyncio.sleep(DOWN_SECONDS)
            assert buyers.failed_requests() > refusals
        healed_at = time.monotonic()
    assert await violations_after(shop_under_fault, buyers, healed_at) == []
