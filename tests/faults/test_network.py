"""Each link fails in each way while orders are placed.

The gateway responds within its deadline, and never reports a success that it does not know of.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.injection.faulty_link import FaultyLink
from tests.faults.shop.shop import Shop
from tests.faults.shop.topology import LINKS, SERVICES

GATEWAY_SECONDS = 5.0
"""The deadline of the gateway's calls (api_gateway/clients)."""
SLACK_SECONDS = 2.5
"""What a busy machine may add to it."""
HANG_SECONDS = GATEWAY_SECONDS + 1.5
"""Longer than the deadline of the gateway."""
_RESETS = 12


@asynccontextmanager
async def _cut(link: FaultyLink) -> AsyncIterator[None]:
    await link.cut()
    await asyncio.sleep(2)
    yield
    await link.resume()


@asynccontextmanager
async def _hanging(link: FaultyLink) -> AsyncIterator[None]:
    link.pause()
    await asyncio.sleep(HANG_SECONDS)
    yield
    await link.resume()


@asynccontextmanager
async def _requests_lost(link: FaultyLink) -> AsyncIterator[None]:
    link.lose_requests = True
    await asyncio.sleep(HANG_SECONDS)
    yield
    link.heal()


@asynccontextmanager
async def _responses_lost(link: FaultyLink) -> AsyncIterator[None]:
    link.lose_responses = True
    await asyncio.sleep(HANG_SECONDS)
    yield
    link.heal()


@asynccontextmanager
async def _slow(link: FaultyLink) -> AsyncIterator[None]:
    link.latency_seconds = 0.3
    await asyncio.sleep(2)
    yield
    link.heal()


@asynccontextmanager
async def _resetting(link: FaultyLink) -> AsyncIterator[None]:
    for _ in range(_RESETS):
        link.drop()
        await asyncio.sleep(0.2)
    yield


FAULTS = {
    "is cut": _cut,
    "hangs": _hanging,
    "loses requests": _requests_lost,
    "loses responses": _responses_lost,
    "is 300 ms slower": _slow,
    "resets its connections": _resetting,
}
CASES = [
    f"{client} to {server} {fault}" for (client, server), fault in itertools.product(LINKS, FAULTS)
]


@pytest.mark.cases("case", CASES, quick=1)
async def test_a_link_fails_and_no_order_is_lost_or_duplicated(
    shop: Shop, buyers: Buyers, case: str
) -> None:
    client, _, server, fault = case.split(" ", 3)
    link = shop.links[client, server]
    affected = link.affected
    async with buyers.ordering():
        async with FAULTS[fault](link):
            assert link.affected > affected, "the fault affected nothing"
        healed_at = time.monotonic()
    assert await violations_after(shop, buyers, healed_at) == []
    assert buyers.slowest_response < GATEWAY_SECONDS + SLACK_SECONDS


@pytest.mark.cases("service", [name for name in SERVICES if name != "api_gateway"], quick=1)
async def test_a_service_hangs_and_the_gateway_responds_in_time(
    shop: Shop, buyers: Buyers, service: str
) -> None:
    sent = buyers.orders_sent
    async with buyers.ordering():
        async with shop.processes[service].hung():
            await asyncio.sleep(HANG_SECONDS)
            assert buyers.orders_sent > sent
        healed_at = time.monotonic()
    assert await violations_after(shop, buyers, healed_at) == []
    assert buyers.slowest_response < GATEWAY_SECONDS + SLACK_SECONDS


@pytest.mark.whole_matrix
async def test_a_gateway_that_hangs_loses_no_order(shop: Shop, buyers: Buyers) -> None:
    buyers.gateway_fails = True
    async with buyers.ordering():
        async with shop.processes["api_gateway"].hung():
            await asyncio.sleep(HANG_SECONDS)
        healed_at = time.monotonic()
    assert buyers.slowest_response > HANG_SECONDS - 1, "no request waited for it"
    assert await violations_after(shop, buyers, healed_at) == []
