"""A broker, a neighbour or a database that is away, hangs or dies: nothing is lost or false."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from tests.support.system import System
from tests.support.waiting import eventually
from tests.system import ledger
from tests.system.shop import Caller, Json, problem

BROKER_AWAY_SECONDS = 15.0
STOCK = 10_000


@dataclass
class Traffic:
    """Orders placed one after the other, each under a key and tried until it is accepted."""

    customer: Caller
    product: int
    accepted: dict[str, str] = field(default_factory=dict)
    """Order ids by key."""
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        while not self.stopping:
            key = str(uuid.uuid4())
            while key not in self.accepted:
                await self._try(key)

    async def _try(self, key: str) -> None:
        body = {"items": [{"product_id": self.product, "quantity": 1}]}
        try:
            answer = await self.customer.call("POST", "/v1/orders", body, {"Idempotency-Key": key})
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            await asyncio.sleep(0.05)
            return
        if answer.status_code == 201:
            self.accepted[key] = answer.json()["id"]
        else:
            # No false refusal either: what fails is told to be tried again.
            assert problem(answer) in [(503, "unavailable"), (504, "timeout")]
            self.failures.append(answer.text)

    async def more(self, count: int, within: float) -> None:
        """Return once so many more orders were accepted."""
        wanted = len(self.accepted) + count

        async def enough() -> bool:
            return len(self.accepted) >= wanted

        await eventually(enough, within=within)


@asynccontextmanager
async def traffic(system: System, admin: Caller, customer: Caller) -> AsyncIterator[Traffic]:
    """Orders keep coming inside the block; after it each one is confirmed, and counted once."""
    product = await admin.product(stock=STOCK)
    orders = Traffic(customer, product)
    running = asyncio.create_task(orders.run())
    try:
        yield orders
    finally:
        orders.stopping = True
        async with asyncio.timeout(30):
            await running
    await system.at_rest(within=45)
    rows = await system.orders.rows(
        "SELECT id::text, idempotency_key, status FROM orders WHERE user_id = $1", customer.user_id
    )
    assert {row["idempotency_key"]: row["id"] for row in rows} == orders.accepted
    assert {row["status"] for row in rows} == {"CONFIRMED"}
    assert await ledger.stock(system, product) == STOCK - len(orders.accepted)


async def _place(customer: Caller, product: int, count: int) -> list[str]:
    body = {"items": [{"product_id": product, "quantity": 1}]}
    placed = [await customer.post("/v1/orders", body) for _ in range(count)]
    assert {order["status"] for order in placed} == {"PENDING"}
    return [str(order["id"]) for order in placed]


async def _statuses(system: System, orders: Sequence[str]) -> set[str]:
    return {await ledger.status(system, order) for order in orders}


async def test_orders_are_accepted_while_the_broker_hangs_and_settle_when_it_is_back(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=100)
    loop = asyncio.get_running_loop()
    placed = []
    async with system.paused("rabbitmq"):
        back = loop.time() + BROKER_AWAY_SECONDS
        while loop.time() < back:
            placed += await _place(customer, product, 2)
            await asyncio.sleep(1)  # the length of the outage is what is tested
        assert await _statuses(system, placed) == {"PENDING"}
        assert (await customer.call("GET", "/readyz")).status_code == 200
    assert len(placed) >= 20
    await system.at_rest(within=30)
    assert await _statuses(system, placed) == {"CONFIRMED"}
    assert await ledger.stock(system, product) == 100 - len(placed)


async def test_orders_are_accepted_while_the_broker_is_down_and_settle_when_it_is_back(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=100)
    killed = await system.kill("rabbitmq")
    placed = await _place(customer, product, 20)
    await system.restarted("rabbitmq", killed)
    await system.at_rest(within=45)
    assert await _statuses(system, placed) == {"CONFIRMED"}
    assert await ledger.stock(system, product) == 80


@pytest.mark.parametrize(
    "service",
    [
        "user_service",
        "inventory_service",
        "order_service",
        "producer_service",
        "consumer_service",
        "api_gateway",
        "postgres",
    ],
)
async def test_what_is_killed_is_started_again_and_orders_go_on(
    system: System, admin: Caller, customer: Caller, service: str
) -> None:
    async with traffic(system, admin, customer) as orders:
        await orders.more(20, within=15)
        killed = await system.kill(service)
        await system.restarted(service, killed)
        await orders.more(20, within=20)
    assert (await customer.order(orders.product))["status"] == "CONFIRMED"


def _calls(product: int) -> dict[str, tuple[str, str, Json | None]]:
    item = {"product_id": product, "quantity": 1}
    account = {"email": f"{uuid.uuid4().hex}@example.com", "password": "long enough", "name": "A"}
    return {
        "register": ("POST", "/v1/auth/register", account),
        "login": ("POST", "/v1/auth/login", account),
        "refresh": ("POST", "/v1/auth/refresh", {"refresh_token": "mine"}),
        "me": ("GET", "/v1/users/me", None),
        "products": ("GET", "/v1/products", None),
        "product": ("GET", f"/v1/products/{product}", None),
        "check": ("POST", "/check_stock", item),
        "order": ("POST", "/v1/orders", {"items": [item]}),
        "orders": ("GET", "/v1/orders", None),
    }


@pytest.mark.parametrize(
    ("away", "affected"),
    [
        ("user_service", {"register", "login", "refresh", "me", "order"}),
        ("inventory_service", {"products", "product", "check", "order"}),
        ("order_service", {"order", "orders"}),
        ("postgres", {"register", "login", "refresh", "me", "product", "check", "order", "orders"}),
    ],
)
async def test_what_needs_a_neighbour_that_is_away_is_put_off_and_changes_nothing(
    system: System, admin: Caller, customer: Caller, away: str, affected: set[str]
) -> None:
    product = await admin.product()
    calls = {name: call for name, call in _calls(product).items() if name in affected}
    await system.at_rest()
    before = await system.contents()
    async with system.down(away):
        answers = await asyncio.gather(*(customer.call(*call) for call in calls.values()))
        for answer in answers:
            assert problem(answer) == (503, "unavailable"), answer.url
            assert int(answer.headers["Retry-After"]) >= 1

    async def database_is_back() -> bool:
        return (await customer.call("GET", f"/v1/products/{product}")).status_code == 200

    await eventually(database_is_back)
    assert await system.contents() == before
    assert (await customer.order(product))["status"] == "CONFIRMED"


async def test_what_takes_too_long_is_given_up_and_can_be_tried_again(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product()
    body = {"items": [{"product_id": product, "quantity": 1}]}
    key = {"Idempotency-Key": "again"}
    async with system.paused("inventory_service"):
        answer = await customer.call("POST", "/v1/orders", body, key)
        assert problem(answer) == (504, "timeout")
    answer = await customer.call("POST", "/v1/orders", body, key)
    assert answer.status_code == 201
    assert (await customer.get("/v1/orders"))["orders"][0]["id"] == answer.json()["id"]
    placed = await system.orders.value(
        "SELECT count(*) FROM orders WHERE user_id = $1", customer.user_id
    )
    assert placed == 1


async def test_a_service_that_is_told_to_stop_finishes_what_it_has_begun(
    system: System, admin: Caller, customer: Caller
) -> None:
    async with traffic(system, admin, customer) as orders:
        await orders.more(10, within=15)
        pid = await system.pid("order_service")
        os.kill(pid, signal.SIGTERM)
        await system.restarted("order_service", pid)
        await orders.more(10, within=20)
    assert "Traceback" not in system.log("order_service")
