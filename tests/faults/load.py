"""Buyers who order with idempotency keys, try again until they know, and remember every answer."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.harness import Shop
from tests.support.waiting import eventually
from tests.system.shop import PASSWORD, Caller

_PAUSE_SECONDS = 0.15
"""Shorter than Retry-After asks for, so that a fault meets more tries."""
_GIVE_UP_SECONDS = 100.0
_TOKEN_SECONDS = 300.0
_REFUSALS = {(409, "insufficient_stock"), (409, "not_cancellable")}
_RETRIED = {(503, "unavailable"), (503, "overloaded"), (503, "not_ready"), (504, "timeout")}


@dataclass
class Load:
    """What buyers did and were told; `accepted` maps (user id, key) to the order's id."""

    shop: Shop
    buyers: Sequence[Caller]
    products: Sequence[int]
    chance: random.Random
    quantity: int = 3
    cancel: float = 0.2
    """How likely an order is cancelled once it is accepted."""
    gateways: Sequence[str] = ("",)
    accepted: dict[tuple[int, str], str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    answered_twice: list[str] = field(default_factory=list)
    false_answers: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    lost: int = 0
    """Accepted orders that were not found when it was looked for them last."""
    doubled: int = 0
    """Movements of stock that were found twice, and keys that had become two orders."""
    sent: int = 0
    slowest: float = 0.0
    logged_in_at: float = field(default_factory=time.monotonic)
    counted: tuple[int, int] = (0, 0)
    """Orders sent and accepted when they were counted last."""

    @classmethod
    async def of(
        cls, shop: Shop, seed: object, *, buyers: int = 6, products: int = 6, stock: int = 100_000
    ) -> "Load":
        """Buyers with accounts of their own, and products: the first one is soon sold out."""
        admin = await shop.admin()
        callers = await asyncio.gather(*(shop.nobody().registered() for _ in range(buyers)))
        wares = [await admin.product(stock=20 if n == 0 else stock) for n in range(products)]
        return cls(shop, callers, wares, random.Random(str(seed)))

    def refusals(self) -> int:
        """How many tries ended without a definite answer."""
        known = ("200", "201", *(f"{status} {code}" for status, code in _REFUSALS))
        return sum(count for answer, count in self.answers.items() if answer not in known)

    async def place(self, orders: int) -> None:
        """Every buyer places so many orders."""
        await self._log_in_again()
        await asyncio.gather(*(self._buy(buyer, orders) for buyer in self.buyers))

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Buyers order all the time inside the block; then they finish what they have begun."""
        await self._log_in_again()
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._buy(buyer, 1 << 30, stop)) for buyer in self.buyers]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def until(self, happened: Callable[[], bool], within: float = 90.0) -> None:
        """Order until `happened()` is true."""

        async def seen() -> bool:
            return happened()

        async with self.going_on():
            await eventually(seen, within=within, every=0.02)

    async def _log_in_again(self) -> None:
        """Renew the buyers' tokens long before they expire: no row lasts as long as one."""
        if time.monotonic() < self.logged_in_at + _TOKEN_SECONDS:
            return
        self.buyers = await asyncio.gather(
            *(buyer.logged_in(buyer.email, PASSWORD, buyer.user_id) for buyer in self.buyers)
        )
        self.logged_in_at = time.monotonic()

    async def _buy(self, buyer: Caller, orders: int, stop: asyncio.Event | None = None) -> None:
        for _ in range(orders):
            if stop is not None and stop.is_set():
                return
            await self._order(buyer)

    async def _order(self, buyer: Caller) -> None:
        key = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        # Crossed: different buyers name the same products in different order.
        wares = self.chance.sample(list(self.products), k=self.chance.randint(1, 3))
        items = [
            {"product_id": ware, "quantity": self.chance.randint(1, self.quantity)}
            for ware in wares
        ]
        cancel = self.chance.random() < self.cancel
        self.sent += 1
        placed = await self._insist(
            buyer, "/v1/orders", {"items": items}, {"Idempotency-Key": key}, success=201
        )
        if placed is None:
            return
        order = str(placed["id"])
        known = self.accepted.setdefault((buyer.user_id, key), order)
        if known != order:
            self.answered_twice.append(f"{key}: {known} and {order}")
        if placed["user_id"] != buyer.user_id:
            self.false_answers.append(f"I8 {order} of another was shown to {buyer.user_id}")
        if cancel:
            done = await self._insist(buyer, f"/v1/orders/{order}/cancel", None, {}, success=200)
            if done is not None:
                self.cancelled.add(order)

    async def _insist(
        self, buyer: Caller, path: str, body: object, headers: Mapping[str, str], success: int
    ) -> dict[str, Any] | None:
        """The answer of success, None if it was refused; tries again while it is unknown."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            gateway = self.chance.choice(self.gateways)
            started = time.monotonic()
            try:
                answer = await buyer.call("POST", f"{gateway}{path}", body, headers)
            except httpx.TransportError as error:
                self.answers[type(error).__name__] += 1
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            finally:
                self.slowest = max(self.slowest, time.monotonic() - started)
            if answer.status_code == success:
                self.answers[str(success)] += 1
                return dict(answer.json())
            if self._refused(answer):
                return None
            await asyncio.sleep(_PAUSE_SECONDS)
        self.given_up.append(path)
        self.false_answers.append(f"I2 no answer to {path} within {_GIVE_UP_SECONDS:g} s")
        return None

    def _refused(self, answer: httpx.Response) -> bool:
        """Whether the answer is a final no; notes one that is no allowed answer at all."""
        code = ""
        with suppress(ValueError, KeyError):
            code = str(answer.json()["code"])
        self.answers[f"{answer.status_code} {code}"] += 1
        if (answer.status_code, code) in _REFUSALS:
            return True
        known = (answer.status_code, code) in _RETRIED
        if not known or (answer.status_code == 503 and "Retry-After" not in answer.headers):
            self.false_answers.append(f"I7 unexpected: {answer.status_code} {answer.text[:200]}")
        return not known
