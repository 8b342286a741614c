"""kill -9 of each service at each step of an order's way: nothing is lost, nothing done twice."""

import time

import pytest

from tests.faults import tally
from tests.faults.conftest import Start
from tests.faults.harness import RECOVERY_SECONDS, SERVICES, START_SECONDS, Shop
from tests.faults.invariants import breaches, broken
from tests.faults.load import Load
from tests.faults.points import BUGS, POINTS, Bug
from tests.faults.promises import Breaches

# An order's way, as the promise names it. A step that is renamed or left out has to be so here too.
STEPS = {
    "the gateway asks for an order",
    "the gateway has an order and tells nobody",
    "users are looked up",
    "prices and stock are looked up",
    "an order is about to be stored",
    "an order is stored and not yet relayed",
    "the relay is about to ask the producer",
    "the producer answered and no row is marked",
    "the rows are marked",
    "the producer is about to publish",
    "the producer has written and has no confirm",
    "the producer is confirmed and does not answer",
    "the consumer is about to update stock",
    "stock is about to be committed",
    "stock is committed and nobody told",
    "stock is updated and the order not settled",
    "a settlement is about to be stored",
    "a settlement is stored and nobody told",
    "orders are settled and the messages not acked",
    "the messages are acked",
    "a cancellation is about to be stored",
    "a cancellation is stored and nobody told",
    "a restored order is about to be released",
    "a restored order is released and nobody told",
}
CHOSEN: set[str] = set()
BUG_SECONDS = 5.0
"""So long an order may take after a bug's crash: the sentences looked for need no patience."""


@pytest.mark.rows("step", POINTS, quick=3)
async def test_a_service_dies_at_a_step_and_every_order_is_settled_once(
    shop: Shop, load: Load, step: str
) -> None:
    CHOSEN.add(step)
    service = POINTS[step].service
    load.gateway_dies = service == "api_gateway"
    mark = await shop.arm(service, step, load.chance("step").randint(1, 3))
    starts = shop.children[service].starts

    died_at = await load.until(lambda: mark.exists() and shop.children[service].starts > starts)

    assert mark.exists(), f"{service} never came to the step: {step}"
    tally.STEPS.add(step)
    await shop.ready()
    await load.place(2)  # what comes after it is served as before
    assert await broken(shop, load, died_at + START_SECONDS) == []


def test_every_step_that_was_chosen_was_hit(pytestconfig: pytest.Config) -> None:
    assert CHOSEN
    assert (STEPS if pytestconfig.getoption("--faults") else CHOSEN) == tally.STEPS


def test_the_list_of_steps_has_some_for_each_service() -> None:
    assert {point.service for point in POINTS.values()} == set(SERVICES)


@pytest.mark.rows("name", BUGS, quick=1)
async def test_the_matrix_finds_a_planted_bug(start: Start, seed: str, name: str) -> None:
    bug = BUGS[name]
    async with start() as shop:
        found = await _found_with(shop, bug, name, seed, BUG_SECONDS)
    assert bug.breaks in found, found


@pytest.mark.whole_matrix
@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if bug.point])
async def test_the_same_crash_without_the_bug_breaks_nothing(
    start: Start, seed: str, name: str
) -> None:
    async with start() as shop:
        assert await _found_with(shop, BUGS[name], "", seed, RECOVERY_SECONDS) == {}


async def _found_with(shop: Shop, bug: Bug, planted: str, seed: str, within: float) -> Breaches:
    """What is found broken once the service that died at the bug's step is back."""
    load = await Load.of(shop, f"{seed} {planted}", buyers=3, products=3)
    dying = POINTS[bug.point].service if bug.point else ""
    mark = await shop.arm(bug.service, bug.point if dying == bug.service else "", 2, planted)
    if dying not in ("", bug.service):
        mark = await shop.arm(dying, bug.point, 2)
    await shop.ready()
    if dying:
        starts = shop.children[dying].starts
        await load.until(lambda: mark.exists() and shop.children[dying].starts > starts)
        await shop.ready()
    else:
        await load.place(5)
    return await breaches(shop, load, time.monotonic() + within)
