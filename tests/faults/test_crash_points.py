"""kill -9 of each service at each step of an order's way: nothing is lost, nothing done twice."""

import random

import pytest

from tests.faults import tally
from tests.faults.conftest import Start
from tests.faults.harness import SERVICES, Shop
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.faults.points import BUGS, POINTS

HIT: set[str] = set()
CHOSEN: set[str] = set()


@pytest.mark.rows("step", POINTS, quick=4)
async def test_a_service_dies_at_a_step_and_every_order_is_settled_once(
    shop: Shop, load: Load, seed: str, step: str
) -> None:
    CHOSEN.add(step)
    service = POINTS[step].service
    load.chance = random.Random(f"{seed} {step}")
    mark = await shop.arm(service, step, load.chance.randint(1, 3))
    starts = shop.children[service].starts

    await load.until(lambda: mark.exists() and shop.children[service].starts > starts)

    assert mark.exists(), f"{service} never came to the step: {step}"
    HIT.add(step)
    await shop.ready()
    await load.place(2)  # what comes after it is served as before
    assert await broken(shop, load) == []
    tally.count(load, faults=1)


def test_every_step_that_was_chosen_was_hit() -> None:
    assert CHOSEN
    assert not CHOSEN - HIT


def test_the_list_of_steps_has_some_for_each_service() -> None:
    assert {point.service for point in POINTS.values()} == set(SERVICES)


@pytest.mark.rows("name", BUGS, quick=1)
async def test_the_matrix_finds_a_planted_bug(start: Start, seed: str, name: str) -> None:
    bug = BUGS[name]
    async with start() as shop:
        load = await Load.of(shop, f"{seed} {name}", buyers=3, products=3)
        dying = POINTS[bug.point].service if bug.point else ""
        mark = await shop.arm(bug.service, bug.point if dying == bug.service else "", 2, name)
        if dying not in ("", bug.service):
            mark = await shop.arm(dying, bug.point, 2)
        await shop.ready()
        if dying:
            await load.until(mark.exists)
            assert mark.exists()
        else:
            await load.place(5)
        breaches = await broken(shop, load, within=6)
    assert {breach[:2] for breach in breaches} >= bug.breaks, breaches
