"""Services that end, in order or not: under load every order is settled once all the same."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.harness import SERVICES, START_SECONDS, Shop
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.support.waiting import eventually

KILLING_SECONDS = 60.0
QUICK_SECONDS = 5.0


@pytest.mark.rows("service", SERVICES, quick=1)
async def test_a_service_that_is_asked_to_end_drains(shop: Shop, load: Load, service: str) -> None:
    child = shop.children[service]
    logged, starts, accepted = len(child.log()), child.starts, len(load.accepted)
    load.gateway_dies = service == "api_gateway"

    async with load.going_on():
        await eventually(_count(load), lambda count: count > accepted + len(load.buyers))
        child.terminate()
        await child.restarted(starts)
        restarted_at = time.monotonic()
    await shop.ready()
    last_words = child.log()[logged:]
    assert '"stopped"' in last_words
    assert "drain took too long" not in last_words
    assert "service failed" not in last_words
    assert await broken(shop, load, restarted_at + START_SECONDS) == []


async def test_services_are_killed_at_random(
    shop: Shop, load: Load, pytestconfig: pytest.Config
) -> None:
    seconds = KILLING_SECONDS if pytestconfig.getoption("--faults") else QUICK_SECONDS
    chance, kills, accepted = load.chance("killer"), 0, len(load.accepted)
    load.gateway_dies = True
    async with load.going_on():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            kills += shop.children[chance.choice(SERVICES)].kill()
            await asyncio.sleep(chance.uniform(0.2, 2.0))
        killed_at = time.monotonic()
    await shop.ready()
    assert kills
    assert len(load.accepted) > accepted
    assert await broken(shop, load, killed_at + START_SECONDS, faults=kills) == []


def _count(load: Load) -> Callable[[], Awaitable[int]]:
    async def accepted() -> int:
        return len(load.accepted)

    return accepted
