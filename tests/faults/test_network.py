"""Links that fail in every way, one after the other, under load.

The gateway answers within its deadline throughout, and what it did not know it did not claim.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.harness import LINKS, SERVICES, Shop
from tests.faults.invariants import broken
from tests.faults.links import Link
from tests.faults.load import Load

GATEWAY_SECONDS = 5.0
"""The deadline of the gateway's calls (api_gateway/clients.py)."""
SLACK_SECONDS = 2.5
"""What busy machines may add to it."""
HANG_SECONDS = GATEWAY_SECONDS + 1.5
"""Longer than the gateway waits."""
_RESETS = 12


@asynccontextmanager
async def _gone(link: Link) -> AsyncIterator[None]:
    await link.cut()
    await asyncio.sleep(2)
    yield
    await link.resume()


@asynccontextmanager
async def _silent(link: Link) -> AsyncIterator[None]:
    link.pause()
    await asyncio.sleep(HANG_SECONDS)
    yield
    await link.resume()


@asynccontextmanager
async def _requests_lost(link: Link) -> AsyncIterator[None]:
    link.lose_requests = True
    await asyncio.sleep(HANG_SECONDS)
    yield
    link.heal()


@asynccontextmanager
async def _replies_lost(link: Link) -> AsyncIterator[None]:
    link.lose_replies = True
    await asyncio.sleep(HANG_SECONDS)
    yield
    link.heal()


@asynccontextmanager
async def _slow(link: Link) -> AsyncIterator[None]:
    link.latency_seconds = 0.3
    await asyncio.sleep(2)
    yield
    link.heal()


@asynccontextmanager
async def _resetting(link: Link) -> AsyncIterator[None]:
    for _ in range(_RESETS):
        link.drop()
        await asyncio.sleep(0.2)
    yield


FAILURES = {
    "is cut": _gone,
    "forwards nothing": _silent,
    "loses what is asked": _requests_lost,
    "loses what is answered": _replies_lost,
    "takes 300 ms longer": _slow,
    "resets its connections": _resetting,
}
CASES = [
    f"{user} to {used} {failure}" for (user, used), failure in itertools.product(LINKS, FAILURES)
]


@pytest.mark.rows("case", CASES, quick=1)
async def test_a_link_fails_and_no_order_is_lost_or_doubled(
    shop: Shop, load: Load, case: str
) -> None:
    user, _, used, failure = case.split(" ", 3)
    link = shop.links[user, used]
    met = link.met
    async with load.going_on():
        async with FAILURES[failure](link):
            assert link.met > met, "nothing met the failure"
        healed_at = time.monotonic()
    assert await broken(shop, load, healed_at) == []
    assert load.slowest < GATEWAY_SECONDS + SLACK_SECONDS


@pytest.mark.rows("service", [name for name in SERVICES if name != "api_gateway"], quick=1)
async def test_a_service_hangs_and_the_gateway_answers_in_time(
    shop: Shop, load: Load, service: str
) -> None:
    sent = load.sent
    async with load.going_on():
        async with shop.children[service].hung():
            await asyncio.sleep(HANG_SECONDS)
            assert load.sent > sent
        healed_at = time.monotonic()
    assert await broken(shop, load, healed_at) == []
    assert load.slowest < GATEWAY_SECONDS + SLACK_SECONDS


@pytest.mark.whole_matrix
async def test_a_gateway_that_hangs_loses_nothing(shop: Shop, load: Load) -> None:
    load.gateway_dies = True
    async with load.going_on():
        async with shop.children["api_gateway"].hung():
            await asyncio.sleep(HANG_SECONDS)
        healed_at = time.monotonic()
    assert load.slowest > HANG_SECONDS - 1, "nobody waited for it"
    assert await broken(shop, load, healed_at) == []
