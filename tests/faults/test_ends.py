"""Services that end, in order or not: under load every order is settled once all the same."""

import asyncio
import time

import pytest

from tests.faults import tally
from tests.faults.harness import SERVICES, Shop
from tests.faults.invariants import broken
from tests.faults.load import Load

KILLING_SECONDS = 60.0


@pytest.mark.rows("service", SERVICES, quick=1)
async def test_a_service_that_is_asked_to_end_drains(shop: Shop, load: Load, service: str) -> None:
    child = shop.children[service]
    logged, starts = len(child.log()), child.starts
    async with load.going_on():
        await asyncio.sleep(0.5)
        child.terminate()
        await child.restarted(starts)
    await shop.ready()
    last_words = child.log()[logged:]
    assert '"stopped"' in last_words
    assert "drain took too long" not in last_words
    assert "service failed" not in last_words
    assert load.given_up == []
    assert await broken(shop, load) == []
    tally.count(load, faults=1)


@pytest.mark.whole_matrix
async def test_services_are_killed_at_random_for_a_minute(shop: Shop, load: Load) -> None:
    kills, end = 0, time.monotonic() + KILLING_SECONDS
    async with load.going_on():
        while time.monotonic() < end:
            victim = shop.children[load.chance.choice(SERVICES)]
            victim.kill()
            kills += 1
            await asyncio.sleep(load.chance.uniform(0.2, 2.0))
    await shop.ready()
    assert await broken(shop, load) == []
    tally.count(load, faults=kills)
