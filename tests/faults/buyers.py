"""Buyers who order under faults: with idempotency keys, and again until they know the outcome."""

import asyncio
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.checks.violations import TWO_RESPONSES, Violations
from tests.faults.shop.shop import Shop
from tests.support.api_client import PASSWORD, ApiClient
from tests.support.waiting import eventually

Key = tuple[int, str]
"""The id of a user, and an idempotency key of that user."""

_PAUSE_SECONDS = 0.15
"""Shorter than Retry-After asks for, so that a fault meets more requests."""
_GIVE_UP_SECONDS = 100.0
_TOKEN_SECONDS = 300.0
_ORDERS = "/v1/orders"
_CANCEL_PROBABILITY = 0.2
_REPEAT_PROBABILITY = 0.1
_MAX_PRODUCTS = 3
_MAX_QUANTITY = 3
_SCARCE_STOCK = 20
_WITHOUT_END = 1 << 30
_FINAL = {(409, "insufficient_stock"), (409, "not_cancellable")}
_RETRIED = {(503, "unavailable"), (503, "overloaded"), (503, "not_ready"), (504, "timeout")}


@dataclass
class Buyers:
    """Customers who place orders concurrently, with every request and response recorded.

    What they order depends on seed and case alone: each buyer has a random generator, which is
    used equally often however many requests an order needs.
    """

    shop: Shop
    clients: Sequence[ApiClient]
    products: Sequence[int]
    seed: str
    case: str = ""
    cancel_probability: float = _CANCEL_PROBABILITY
    """How likely an accepted order is cancelled."""
    gateway_urls: Sequence[str] = ("",)
    gateway_fails: bool = False
    """Whether this case makes the gateway fail, so that requests may get no response."""
    requested: dict[Key, dict[int, int]] = field(default_factory=dict)
    """Every order that was ever requested: quantities by product."""
    accepted: dict[Key, str] = field(default_factory=dict)
    """The id of every order with a successful response."""
    cancelled: set[str] = field(default_factory=set)
    """The ids of orders with a successful response to their cancellation."""
    responses: Counter[str] = field(default_factory=Counter)
    """The number of responses by status and code, and of transport errors by type."""
    violations: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Responses that break a promise."""
    orders_sent: int = 0
    """Requests for orders, retries included."""
    slowest_response: float = 0.0
    """The longest time in seconds that a response took in this case."""
    counted: tuple[int, int] = (0, 0)
    """Orders sent and accepted at the last report."""
    _logged_in_at: float = field(default_factory=time.monotonic)
    _randoms: Sequence[random.Random] = ()
    _reported: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    async def register(
        cls, shop: Shop, seed: object, *, buyers: int = 6, products: int = 6, stock: int = 100_000
    ) -> "Buyers":
        """Buyers with their own accounts, and products, the first of which sells out soon."""
        admin = await shop.admin()
        clients = await asyncio.gather(*(shop.anonymous().register() for _ in range(buyers)))
        stocks = [_SCARCE_STOCK, *([stock] * (products - 1))]
        found = [await admin.create_product(stock=each) for each in stocks]
        registered = cls(shop, clients, found, str(seed))
        registered.start_case("")
        return registered

    def start_case(self, case: str) -> None:
        """From now on order what belongs to this case, whatever ran before it."""
        self.case = case
        self._randoms = [self.random_for(f"buyer {n}") for n in range(len(self.clients))]
        self.cancel_probability = _CANCEL_PROBABILITY
        self.gateway_fails = False
        self.slowest_response = 0.0

    def random_for(self, purpose: str) -> random.Random:
        """A random generator for one purpose of this case."""
        return random.Random(f"{self.seed} {self.case} {purpose}")

    def new_violations(self, found: Violations) -> Violations:
        """Those not reported before: a violation fails the case that caused it, not all later."""
        new = {
            violation: [case for case in cases if (violation, case) not in self._reported]
            for violation, cases in found.items()
        }
        self._reported |= {(violation, case) for violation, cases in new.items() for case in cases}
        return {violation: cases for violation, cases in new.items() if cases}

    def failed_requests(self) -> int:
        """How many requests ended without a definite response."""
        definite = ("200", "201", *(f"{status} {code}" for status, code in _FINAL))
        return sum(count for response, count in self.responses.items() if response not in definite)

    async def place_orders(self, count: int) -> None:
        """Every buyer places `count` orders."""
        await self._renew_tokens()
        await asyncio.gather(*(self._order_repeatedly(n, count) for n in range(len(self.clients))))

    @asynccontextmanager
    async def ordering(self) -> AsyncIterator[None]:
        """Every buyer orders without a pause inside the block, then finishes the last order."""
        await self._renew_tokens()
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(self._order_repeatedly(n, _WITHOUT_END, stop))
            for n in range(len(self.clients))
        ]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def order_until(self, condition: Callable[[], bool], within: float = 90.0) -> float:
        """Order until the condition holds; the time of `time.monotonic()` when it did."""

        async def holds() -> bool:
            return condition()

        async with self.ordering():
            await eventually(holds, within=within, every=0.02)
            return time.monotonic()

    async def repeat_orders(self, count: int) -> None:
        """Repeat the requests of some accepted orders, which must return the same orders."""
        await self._renew_tokens()
        clients = {client.user_id: client for client in self.clients}
        keys = list(self.accepted)
        for key in self.random_for("repeat").sample(keys, k=min(count, len(keys))):
            await self._request_order(clients[key[0]], key)

    async def _renew_tokens(self) -> None:
        """Log in again long before the tokens expire: no case lasts as long as a token."""
        if time.monotonic() < self._logged_in_at + _TOKEN_SECONDS:
            return
        self.clients = await asyncio.gather(
            *(client.log_in(client.email, PASSWORD, client.user_id) for client in self.clients)
        )
        self._logged_in_at = time.monotonic()

    async def _order_repeatedly(
        self, number: int, count: int, stop: asyncio.Event | None = None
    ) -> None:
        for _ in range(count):
            if stop is not None and stop.is_set():
                return
            await self._place_order(self.clients[number], self._randoms[number])

    async def _place_order(self, client: ApiClient, rng: random.Random) -> None:
        key = client.user_id, str(uuid.UUID(int=rng.getrandbits(128), version=4))
        # Different buyers name the same products in different order.
        products = rng.sample(list(self.products), k=rng.randint(1, _MAX_PRODUCTS))
        self.requested[key] = {product: rng.randint(1, _MAX_QUANTITY) for product in products}
        repeat = rng.random() < _REPEAT_PROBABILITY
        cancel = rng.random() < self.cancel_probability
        order_id = await self._request_order(client, key)
        if order_id is None:
            return
        if repeat:
            await self._request_order(client, key)
        if cancel:
            path = f"{_ORDERS}/{order_id}/cancel"
            if await self._post_until_definite(client, path, None, {}, success=200) is not None:
                self.cancelled.add(order_id)

    async def _request_order(self, client: ApiClient, key: Key) -> str | None:
        """The id of the order; None if it was refused."""
        items = [
            {"product_id": product, "quantity": n} for product, n in self.requested[key].items()
        ]
        headers = {"Idempotency-Key": key[1]}
        body = {"items": items}
        order = await self._post_until_definite(client, _ORDERS, body, headers, success=201)
        if order is None:
            if key in self.accepted:
                self.violations["I6 an accepted order was refused"].append(str(key))
            return None
        order_id = str(order["id"])
        first = self.accepted.setdefault(key, order_id)
        if first != order_id:
            self.violations[TWO_RESPONSES].append(f"{key}: {first} and {order_id}")
        if order["user_id"] != client.user_id:
            self.violations["I8 a response has the order of another user"].append(order_id)
        return order_id

    async def _post_until_definite(
        self, client: ApiClient, path: str, body: object, headers: Mapping[str, str], success: int
    ) -> dict[str, Any] | None:
        """The body of a success, None after a final refusal; retries while neither is known."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            self.orders_sent += path == _ORDERS
            gateway_url = self.gateway_urls[self.orders_sent % len(self.gateway_urls)]
            started = time.monotonic()
            try:
                response = await client.call("POST", f"{gateway_url}{path}", body, headers)
            except httpx.TransportError as error:
                self._record_transport_error(error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            finally:
                elapsed = time.monotonic() - started
                self.slowest_response = max(self.slowest_response, elapsed)
            if response.status_code == success:
                self.responses[str(success)] += 1
                return dict(response.json())
            if self._is_final(response):
                return None
            await asyncio.sleep(_PAUSE_SECONDS)
        self.violations["I2 a buyer gave up"].append(f"{path} {headers}")
        return None

    def _record_transport_error(self, error: httpx.TransportError) -> None:
        self.responses[type(error).__name__] += 1
        if not self.gateway_fails:
            self.violations["I7 a request got no response"].append(f"in {self.case}: {error!r}")

    def _is_final(self, response: httpx.Response) -> bool:
        """Whether a retry is pointless; a response that no promise allows is a violation."""
        code = ""
        with suppress(ValueError, KeyError):
            code = str(response.json()["code"])
        self.responses[f"{response.status_code} {code}"] += 1
        if (response.status_code, code) in _FINAL:
            return True
        retried = (response.status_code, code) in _RETRIED
        if not retried or "Retry-After" not in response.headers:
            what = f"in {self.case}: {response.status_code} {response.text[:200]}"
            self.violations["I7 a response is not allowed"].append(what)
        return not retried
