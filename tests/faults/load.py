"""Buyers who order with idempotency keys, try again until they know, and remember every answer."""

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

from tests.faults.harness import Shop
from tests.faults.promises import ANSWERED_TWICE, Breaches
from tests.support.waiting import eventually
from tests.system.shop import PASSWORD, Caller

Key = tuple[int, str]
"""A user's id and an idempotency key of that user."""

_PAUSE_SECONDS = 0.15
"""Shorter than Retry-After asks for, so that a fault meets more tries."""
_GIVE_UP_SECONDS = 100.0
_TOKEN_SECONDS = 300.0
_ORDERS = "/v1/orders"
_CANCEL = 0.2
_REFUSALS = {(409, "insufficient_stock"), (409, "not_cancellable")}
_RETRIED = {(503, "unavailable"), (503, "overloaded"), (503, "not_ready"), (504, "timeout")}


@dataclass
class Load:
    """What buyers did and were told.

    What they draw depends on seed and row alone: each buyer has dice of its own, and throws them
    equally often however many tries an order needs.
    """

    shop: Shop
    buyers: Sequence[Caller]
    products: Sequence[int]
    seed: str
    row: str = ""
    quantity: int = 3
    cancel: float = _CANCEL
    """How likely an order is cancelled once it is accepted."""
    repeat: float = 0.1
    """How likely an order is sent once more although it was answered."""
    gateways: Sequence[str] = ("",)
    gateway_dies: bool = False
    """Whether this row hurts the gateway itself, so that requests may get no answer at all."""
    asked: dict[Key, dict[int, int]] = field(default_factory=dict)
    """Every order that was ever sent: how much of which product."""
    accepted: dict[Key, str] = field(default_factory=dict)
    """The id of every order that was answered with success."""
    cancelled: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    false_answers: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    sent: int = 0
    """Orders sent, each try counted."""
    slowest: float = 0.0
    """The longest that an answer took in this row."""
    counted: tuple[int, int] = (0, 0)
    """Orders sent and accepted when they were counted last."""
    logged_in_at: float = field(default_factory=time.monotonic)
    _dice: Sequence[random.Random] = ()
    _told: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    async def of(
        cls, shop: Shop, seed: object, *, buyers: int = 6, products: int = 6, stock: int = 100_000
    ) -> "Load":
        """Buyers with accounts of their own, and products: the first one is soon sold out."""
        admin = await shop.admin()
        callers = await asyncio.gather(*(shop.nobody().registered() for _ in range(buyers)))
        wares = [await admin.product(stock=20 if n == 0 else stock) for n in range(products)]
        load = cls(shop, callers, wares, str(seed))
        load.begin("")
        return load

    def begin(self, row: str) -> None:
        """Draw from now on what belongs to this row, whatever ran before it."""
        self.row = row
        self._dice = [self.chance(f"buyer {number}") for number in range(len(self.buyers))]
        self.cancel = _CANCEL
        self.gateway_dies = False
        self.slowest = 0.0

    def chance(self, purpose: str) -> random.Random:
        """Dice for one purpose of this row."""
        return random.Random(f"{self.seed} {self.row} {purpose}")

    def news(self, found: Breaches) -> Breaches:
        """What was not found before: a breach fails the row that made it, not all after it."""
        new = {
            sentence: [case for case in cases if (sentence, case) not in self._told]
            for sentence, cases in found.items()
        }
        self._told |= {(sentence, case) for sentence, cases in new.items() for case in cases}
        return {sentence: cases for sentence, cases in new.items() if cases}

    def refusals(self) -> int:
        """How many tries ended without a definite answer."""
        known = ("200", "201", *(f"{status} {code}" for status, code in _REFUSALS))
        return sum(count for answer, count in self.answers.items() if answer not in known)

    async def place(self, orders: int) -> None:
        """Every buyer places so many orders."""
        await self._log_in_again()
        await asyncio.gather(*(self._buy(number, orders) for number in range(len(self.buyers))))

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Buyers order all the time inside the block; then they finish what they have begun."""
        await self._log_in_again()
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(self._buy(number, 1 << 30, stop))
            for number in range(len(self.buyers))
        ]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def until(self, happened: Callable[[], bool], within: float = 90.0) -> float:
        """Order until `happened()` is true; the moment when it was."""

        async def seen() -> bool:
            return happened()

        async with self.going_on():
            await eventually(seen, within=within, every=0.02)
            return time.monotonic()

    async def ask_again(self, orders: int) -> None:
        """Send some accepted orders once more: their answers have to be the same."""
        await self._log_in_again()
        buyers = {buyer.user_id: buyer for buyer in self.buyers}
        known = list(self.accepted)
        for key in self.chance("again").sample(known, k=min(orders, len(known))):
            await self._place(buyers[key[0]], key)

    async def _log_in_again(self) -> None:
        """Renew the buyers' tokens long before they expire: no row lasts as long as one."""
        if time.monotonic() < self.logged_in_at + _TOKEN_SECONDS:
            return
        self.buyers = await asyncio.gather(
            *(buyer.logged_in(buyer.email, PASSWORD, buyer.user_id) for buyer in self.buyers)
        )
        self.logged_in_at = time.monotonic()

    async def _buy(self, number: int, orders: int, stop: asyncio.Event | None = None) -> None:
        for _ in range(orders):
            if stop is not None and stop.is_set():
                return
            await self._order(self.buyers[number], self._dice[number])

    async def _order(self, buyer: Caller, dice: random.Random) -> None:
        key = buyer.user_id, str(uuid.UUID(int=dice.getrandbits(128), version=4))
        # Crossed: different buyers name the same products in different order.
        wares = dice.sample(list(self.products), k=dice.randint(1, 3))
        self.asked[key] = {ware: dice.randint(1, self.quantity) for ware in wares}
        repeat, cancel = dice.random() < self.repeat, dice.random() < self.cancel
        order = await self._place(buyer, key)
        if order is None:
            return
        if repeat:
            await self._place(buyer, key)
        if cancel:
            done = await self._insist(buyer, f"{_ORDERS}/{order}/cancel", None, {}, success=200)
            if done is not None:
                self.cancelled.add(order)

    async def _place(self, buyer: Caller, key: Key) -> str | None:
        """The order's id; None if it was refused."""
        items = [{"product_id": ware, "quantity": n} for ware, n in self.asked[key].items()]
        headers = {"Idempotency-Key": key[1]}
        placed = await self._insist(buyer, _ORDERS, {"items": items}, headers, success=201)
        if placed is None:
            if key in self.accepted:
                self.false_answers["I6 an accepted order was refused"].append(str(key))
            return None
        order = str(placed["id"])
        known = self.accepted.setdefault(key, order)
        if known != order:
            two = f"{key}: {known} and {order}"
            self.false_answers[ANSWERED_TWICE].append(two)
        if placed["user_id"] != buyer.user_id:
            self.false_answers["I8 an order of another was shown"].append(order)
        return order

    async def _insist(
        self, buyer: Caller, path: str, body: object, headers: Mapping[str, str], success: int
    ) -> dict[str, Any] | None:
        """The answer of success, None if it was refused; tries again while it is unknown."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            self.sent += path == _ORDERS
            gateway = self.gateways[self.sent % len(self.gateways)]
            started = time.monotonic()
            try:
                answer = await buyer.call("POST", f"{gateway}{path}", body, headers)
            except httpx.TransportError as error:
                self._unanswered(error)
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
        self.false_answers["I2 buyers gave up"].append(f"{path} {headers}")
        return None

    def _unanswered(self, error: httpx.TransportError) -> None:
        self.answers[type(error).__name__] += 1
        if not self.gateway_dies:
            self.false_answers["I7 no answer at all"].append(f"in {self.row}: {error!r}")

    def _refused(self, answer: httpx.Response) -> bool:
        """Whether the answer is a final no; notes one that is no allowed answer at all."""
        code = ""
        with suppress(ValueError, KeyError):
            code = str(answer.json()["code"])
        self.answers[f"{answer.status_code} {code}"] += 1
        if (answer.status_code, code) in _REFUSALS:
            return True
        known = (answer.status_code, code) in _RETRIED
        if not known or "Retry-After" not in answer.headers:
            what = f"in {self.row}: {answer.status_code} {answer.text[:200]}"
            self.false_answers["I7 an answer that is not allowed"].append(what)
        return not known
