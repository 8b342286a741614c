"""Rate limits of registration, login and wrong passwords.

Against password guessing: few failures for an account from one address, and a limit on failures
from all addresses together. Against locking owners out: only failures count against an account,
and an address from which its owner has logged in keeps its own allowance whatever others do.
Against overload by password hashing: a limit on all attempts from an address, and on
registrations for one e-mail from any address.
Each gateway process counts separately.
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
from service_kit.text import normalize_text

MAX_OWNER_NETWORKS = 10_000
"""How many pairs of an account and a network that its owner logged in from are remembered."""


class RateLimits:
    """Sliding-window limits; an attempt beyond one is refused with 429 and Retry-After."""

    def __init__(self, attempts: str, failures: str, account_failures: str) -> None:
        """Rates are written like `10/minute`; Settings says what each one limits."""
        self._attempts = parse(attempts)
        self._failures = parse(failures)
        self._account_failures = parse(account_failures)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._owner_networks: dict[tuple[str, str], None] = {}

    async def count_registration(self, address: str, email: str) -> None:
        """Count a registration from this address, and for this e-mail."""
        await self._count(self._attempts, "registration", _network(address))
        await self._count(self._attempts, "registered", normalize_text(email))

    @asynccontextmanager
    async def login_attempt(self, address: str, email: str) -> AsyncIterator[None]:
        """Count the login attempt in the block; it failed if the block raises Unauthenticated."""
        network, account = _network(address), normalize_text(email)
        pair = account, network
        await self._count(self._attempts, "login", network)
        # Counted before the outcome is known, so that concurrent attempts all count.
        await self._count(self._failures, "failure", *pair)
        if pair not in self._owner_networks and not await self._limiter.test(
            self._account_failures, "account", account
        ):
            raise await self._problem(self._account_failures, "account", account)
        try:
            yield
        except Unauthenticated:
            await self._limiter.hit(self._account_failures, "account", account)
            raise
        await self._limiter.clear(self._failures, "failure", *pair)
        self._remember_owner(pair)

    async def _count(self, rate: RateLimitItem, *key: str) -> None:
        if not await self._limiter.hit(rate, *key):
            raise await self._problem(rate, *key)

    async def _problem(self, rate: RateLimitItem, *key: str) -> Problem:
        reset = (await self._limiter.get_window_stats(rate, *key)).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        return Problem("rate_limited", headers={"Retry-After": str(seconds)})

    def _remember_owner(self, pair: tuple[str, str]) -> None:
        self._owner_networks.pop(pair, None)
        if len(self._owner_networks) >= MAX_OWNER_NETWORKS:
            del self._owner_networks[next(iter(self._owner_networks))]
        self._owner_networks[pair] = None


def _network(address: str) -> str:
    """The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return address
