"""Bugs planted into the services: the fault matrix finds each, and nothing without the bug."""

import time

import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import RECOVERY_SECONDS, find_violations
from tests.faults.checks.violations import Violations
from tests.faults.conftest import StartShop
from tests.faults.injection.crash_points import CRASH_POINTS
from tests.faults.injection.planted_bugs import PLANTED_BUGS, PlantedBug
from tests.faults.shop.shop import Shop

BUG_SECONDS = 5.0
"""The time that orders have to be settled after a bug's crash: its violation needs no patience."""
CRASH_AT_CALL = 2


@pytest.mark.cases("name", PLANTED_BUGS, quick=1)
async def test_the_matrix_finds_a_planted_bug(
    start_own_shop: StartShop, seed: str, name: str
) -> None:
    bug = PLANTED_BUGS[name]
    async with start_own_shop() as shop:
        found = await _violations_with(shop, bug, name, seed, BUG_SECONDS)
    assert bug.violation in found, found


@pytest.mark.whole_matrix
@pytest.mark.parametrize("name", [name for name, bug in PLANTED_BUGS.items() if bug.crash_point])
async def test_the_same_crash_without_the_bug_violates_nothing(
    start_own_shop: StartShop, seed: str, name: str
) -> None:
    async with start_own_shop() as shop:
        found = await _violations_with(shop, PLANTED_BUGS[name], "", seed, RECOVERY_SECONDS)
    assert found == {}


async def _violations_with(
    shop: Shop, bug: PlantedBug, planted: str, seed: str, within: float
) -> Violations:
    """The violations found once the service that crashed at the bug's step is restarted."""
    buyers = await Buyers.register(shop, f"{seed} {planted}", buyers=3, products=3)
    point = bug.crash_point
    crashing = CRASH_POINTS[point].service if point else ""
    own_point = point if crashing == bug.service else ""
    mark = await shop.arm(bug.service, own_point, CRASH_AT_CALL, planted)
    if crashing not in ("", bug.service):
        mark = await shop.arm(crashing, point, CRASH_AT_CALL)
    await shop.wait_until_ready()
    if crashing:
        starts = shop.processes[crashing].starts
        await buyers.order_until(lambda: mark.exists() and shop.processes[crashing].starts > starts)
        await shop.wait_until_ready()
    else:
        await buyers.place_orders(5)
    return await find_violations(shop, buyers, time.monotonic() + within)
