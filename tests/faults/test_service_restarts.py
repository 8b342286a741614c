"""Services that shut down or are killed under load: every order is settled once."""

import asyncio
import time

import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.shop.shop import START_SECONDS, Shop
from tests.faults.shop.topology import SERVICES
from tests.support.waiting import eventually

KILLING_SECONDS = 60.0
QUICK_SECONDS = 5.0


@pytest.mark.cases("service", SERVICES, quick=1)
async def test_a_service_drains_when_it_is_terminated(
    shop: Shop, buyers: Buyers, service: str
) -> None:
    process = shop.processes[service]
    logged, starts, before = len(process.log()), process.starts, len(buyers.accepted)
    buyers.gateway_fails = service == "api_gateway"

    async def accepted() -> int:
        return len(buyers.accepted) - before

    async with buyers.ordering():
        await eventually(accepted, lambda count: count > len(buyers.clients))
        process.terminate()
        await process.wait_for_restart(starts)
        restarted_at = time.monotonic()
    await shop.wait_until_ready()
    log = process.log()[logged:]
    assert '"stopped"' in log
    assert "drain took too long" not in log
    assert "service failed" not in log
    assert await violations_after(shop, buyers, restarted_at + START_SECONDS) == []


async def test_services_are_killed_at_random(
    shop: Shop, buyers: Buyers, pytestconfig: pytest.Config
) -> None:
    seconds = KILLING_SECONDS if pytestconfig.getoption("--faults") else QUICK_SECONDS
    rng, kills, accepted = buyers.random_for("kills"), 0, len(buyers.accepted)
    buyers.gateway_fails = True
    async with buyers.ordering():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            kills += shop.processes[rng.choice(SERVICES)].kill()
            await asyncio.sleep(rng.uniform(0.2, 2.0))
        killed_at = time.monotonic()
    await shop.wait_until_ready()
    assert kills
    assert len(buyers.accepted) > accepted
    assert await violations_after(shop, buyers, killed_at + START_SECONDS, faults=kills) == []
