"""kill -9 of each service at each step of the order lifecycle: nothing is lost or done twice."""

import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks import totals
from tests.faults.checks.invariants import violations_after
from tests.faults.injection.crash_points import CRASH_POINTS
from tests.faults.shop.shop import START_SECONDS, Shop
from tests.faults.shop.topology import SERVICES

# Listed again: a crash point that is renamed or left out there must be changed here too.
EXPECTED = {
    "the gateway is about to send an order",
    "the gateway has an order and has not responded",
    "users are about to be looked up",
    "prices and stock are about to be looked up",
    "an order is about to be stored",
    "an order is stored and not relayed",
    "the relay is about to call the producer",
    "the producer has responded and no event is marked",
    "the events are marked as sent",
    "the producer is about to publish",
    "the producer has published and has no confirm",
    "the producer has its confirms and has not responded",
    "the consumer is about to update stock",
    "stock is about to be committed",
    "stock is committed and not reported",
    "stock is updated and no order is settled",
    "a settlement is about to be stored",
    "a settlement is stored and not reported",
    "orders are settled and no message is acked",
    "the messages are acked",
    "a cancellation is about to be stored",
    "a cancellation is stored and not reported",
    "a restored order is about to be released",
    "a restored order is released and not reported",
}
SELECTED: set[str] = set()


@pytest.mark.cases("crash_point", CRASH_POINTS, quick=3)
async def test_a_service_crashes_at_a_step_and_every_order_is_settled_once(
    shop: Shop, buyers: Buyers, crash_point: str
) -> None:
    SELECTED.add(crash_point)
    service = CRASH_POINTS[crash_point].service
    buyers.gateway_fails = service == "api_gateway"
    mark = await shop.arm(service, crash_point, buyers.random_for("call").randint(1, 3))
    starts = shop.processes[service].starts

    crashed_at = await buyers.order_until(
        lambda: mark.exists() and shop.processes[service].starts > starts
    )

    assert mark.exists(), f"{service} never reached the crash point: {crash_point}"
    totals.CRASH_POINTS_HIT.add(crash_point)
    await shop.wait_until_ready()
    await buyers.place_orders(2)  # orders after the crash are served as before
    assert await violations_after(shop, buyers, crashed_at + START_SECONDS) == []


def test_every_selected_crash_point_was_hit(pytestconfig: pytest.Config) -> None:
    assert SELECTED
    expected = EXPECTED if pytestconfig.getoption("--faults") else SELECTED
    assert expected == totals.CRASH_POINTS_HIT


def test_each_service_has_crash_points() -> None:
    assert {point.service for point in CRASH_POINTS.values()} == set(SERVICES)
