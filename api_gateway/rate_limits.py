"""How often a client may register, log in, and be wrong.

Against guessing passwords: few wrong ones for an account from an address, and not many from all
addresses together. Against locking others out: only wrong passwords count against an account,
and an address from which its owner has logged in keeps its own allowance whatever others do.
Against wearing the servers out by hashing: a limit on all tries from an address, and on
registrations for one e-mail from anywhere.
Each gateway process counts for itself.
"""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from api_gateway.problems import Problem
from service_kit.errors import Unauthenticated
from service_kit.text import canonical

MAX_KNOWN = 10_000
"""How many (account, address) pairs are remembered as the owner's."""


class RateLimits:
    """Sliding-window limits; a try beyond one is refused with 429 and Retry-After."""

    def __init__(self, tries: str, failures: str, account_failures: str) -> None:
        """Rates are written like `10/minute`; see Settings for what each one limits."""
        self._tries = parse(tries)
        self._failures = parse(failures)
        self._account_failures = parse(account_failures)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._owners: dict[tuple[str, str], None] = {}

    async def registration(self, address: str, email: str) -> None:
        """Count a registration from this address, and for this e-mail."""
        await self._spend(self._tries, "registration", _network(address))
        await self._spend(self._tries, "registered", canonical(email))

    @asynccontextmanager
    async def login(self, address: str, email: str) -> AsyncIterator[None]:
        """Count the log-in that the block tries; it failed if it raises Unauthenticated."""
        network, account = _network(address), canonical(email)
        pair = account, network
        await self._spend(self._tries, "login", network)
        # Spent before the outcome is known, so that tries at the same time all count.
        await self._spend(self._failures, "failure", *pair)
        if pair not in self._owners and not await self._limiter.test(
            self._account_failures, "account", account
        ):
            raise await self._refusal(self._account_failures, "account", account)
        try:
            yield
        except Unauthenticated:
            await self._limiter.hit(self._account_failures, "account", account)
            raise
        await self._limiter.clear(self._failures, "failure", *pair)
        self._remember(pair)

    async def _spend(self, rate: RateLimitItem, *key: str) -> None:
        if not await self._limiter.hit(rate, *key):
            raise await self._refusal(rate, *key)

    async def _refusal(self, rate: RateLimitItem, *key: str) -> Problem:
        reset = (await self._limiter.get_window_stats(rate, *key)).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        return Problem("rate_limited", headers={"Retry-After": str(seconds)})

    def _remember(self, pair: tuple[str, str]) -> None:
        self._owners.pop(pair, None)
        if len(self._owners) >= MAX_KNOWN:
            del self._owners[next(iter(self._owners))]
        self._owners[pair] = None


def _network(address: str) -> str:
    """What one client has for itself: an IPv4 address, or the /64 around an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return address
