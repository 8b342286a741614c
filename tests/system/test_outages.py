"""Outages of broker, services and database: no order is lost, no response is wrong."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.api_client import ApiClient, Json, problem
from tests.support.system import System
from tests.support.waiting import eventually
from tests.system import database

BROKER_HANGS_SECONDS = 15.0
STOCK = 10_000
PAUSE_SECONDS = 0.1
"""Before a client repeats a request."""
SERVICES = (
    "user_service",
    "inventory_service",
    "order_service",
    "producer_service",
    "consumer_service",
    "api_gateway",
)


@dataclass
class Traffic:
    """Orders one after the other, each with an idempotency key and repeated until accepted."""

    customer: ApiClient
    product: int
    accepted: dict[str, str] = field(default_factory=dict)
    """Order ids by key."""
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        while not self.stopping:
            key = str(uuid.uuid4())
            while key not in self.accepted:
                await self._attempt(key)

    async def _attempt(self, key: str) -> None:
        body = {"items": [{"product_id": self.product, "quantity": 1}]}
        try:
            response = await self.customer.call(
                "POST", "/v1/orders", body, {"Idempotency-Key": key}
            )
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            await asyncio.sleep(PAUSE_SECONDS)
            return
        if response.status_code == 201:
            self.accepted[key] = response.json()["id"]
            return
        # No final refusal: every failure asks the client to retry.
        assert problem(response) in [(503, "unavailable"), (504, "timeout")]
        self.failures.append(response.text)
        await asyncio.sleep(PAUSE_SECONDS)

    async def more(self, count: int, within: float) -> None:
        """Return once `count` more orders were accepted."""
        wanted = len(self.accepted) + count

        async def enough() -> bool:
            return len(self.accepted) >= wanted

        await eventually(enough, within=within)

    async def confirmed(self) -> bool:
        """Whether the last accepted order is CONFIRMED in time."""
        last = list(self.accepted.values())[-1]

        async def status() -> str:
            try:
                return str((await self.customer.get(f"/v1/orders/{last}"))["status"])
            except httpx.TransportError as error:
                return repr(error)

        return await eventually(status, lambda found: found == "CONFIRMED") == "CONFIRMED"


@asynccontextmanager
async def traffic(system: System, admin: ApiClient, customer: ApiClient) -> AsyncIterator[Traffic]:
    """Orders are placed inside the block; after it each is CONFIRMED and stored once."""
    product = await admin.create_product(stock=STOCK)
    orders = Traffic(customer, product)
    running = asyncio.create_task(orders.run())
    try:
        yield orders
    finally:
        orders.stopping = True
        async with asyncio.timeout(30):
            await running
    await system.wait_until_settled(within=45)
    rows = await system.orders.rows(
        "SELECT id::text, idempotency_key, status FROM orders WHERE user_id = $1", customer.user_id
    )
    assert {row["idempotency_key"]: row["id"] for row in rows} == orders.accepted
    assert {row["status"] for row in rows} == {"CONFIRMED"}
    assert await database.stock(system, product) == STOCK - len(orders.accepted)


async def _place(customer: ApiClient, product: int, count: int) -> list[str]:
    body = {"items": [{"product_id": product, "quantity": 1}]}
    placed = [await customer.post("/v1/orders", body) for _ in range(count)]
    assert {order["status"] for order in placed} == {"PENDING"}
    return [str(order["id"]) for order in placed]


async def _statuses(system: System, orders: Sequence[str]) -> set[str]:
    return {await database.order_status(system, order) for order in orders}


async def test_orders_are_accepted_while_the_broker_hangs_and_settled_after_it(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=100)
    loop = asyncio.get_running_loop()
    placed = []
    async with system.paused("rabbitmq"):
        end = loop.time() + BROKER_HANGS_SECONDS
        while loop.time() < end:
            placed += await _place(customer, product, 2)
            await asyncio.sleep(1)  # the length of the outage is what is tested
        assert await _statuses(system, placed) == {"PENDING"}
        assert (await customer.call("GET", "/readyz")).status_code == 200
    assert len(placed) >= 10
    await system.wait_until_settled(within=30)
    assert await _statuses(system, placed) == {"CONFIRMED"}
    assert await database.stock(system, product) == 100 - len(placed)


async def test_orders_are_accepted_while_the_broker_is_down_and_settled_after_it(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=100)
    _, killed = (await system.status())["rabbitmq"]
    os.kill(killed, signal.SIGKILL)
    placed = await _place(customer, product, 20)
    await system.wait_for_restart("rabbitmq", killed)
    await system.wait_until_settled(within=45)
    assert await _statuses(system, placed) == {"CONFIRMED"}
    assert await database.stock(system, product) == 80


async def test_a_killed_service_is_restarted_and_orders_are_still_accepted(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    killed = await system.status()
    async with traffic(system, admin, customer) as orders:
        for service in SERVICES:
            await orders.more(5, within=15)
            os.kill(killed[service][1], signal.SIGKILL)
            await orders.more(5, within=20)
            assert await orders.confirmed(), service
        for service in SERVICES:
            await system.wait_for_restart(service, killed[service][1])


Call = tuple[str, str, Json | None]
READS = ("me", "product", "orders")


def _calls(product: int) -> dict[str, Call]:
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


AFFECTED = {
    "user_service": {"register", "login", "refresh", "me", "order"},
    "inventory_service": {"products", "product", "check", "order"},
    "order_service": {"order", "orders"},
}


async def _are_unavailable(customer: ApiClient, calls: Iterable[Call]) -> None:
    responses = await asyncio.gather(*(customer.call(*call) for call in calls))
    for response in responses:
        assert problem(response) == (503, "unavailable"), response.url
        assert int(response.headers["Retry-After"]) >= 1


async def test_calls_of_an_unavailable_service_are_refused_and_change_nothing(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    calls = _calls(product)
    async with system.unchanged(), system.without_restarts() as kill:
        states = dict.fromkeys(AFFECTED, "serving")
        for service, affected in AFFECTED.items():
            kill(service)
            await _are_unavailable(customer, (calls[name] for name in affected))
            states[service] = "not serving"
            response = await customer.call("GET", "/readyz")
            assert problem(response) == (503, "not_ready")
            assert response.json()["metadata"] == {"dependencies": states}
    assert (await customer.place_order(product))["status"] == "CONFIRMED"


async def test_every_call_is_unavailable_while_the_database_is_down(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    calls = _calls(product)
    await system.wait_until_settled()
    before = await system.contents()
    async with system.without_restarts() as kill:
        kill("postgres")
        await _are_unavailable(customer, calls.values())

    async def reads_succeed() -> bool:
        responses = await asyncio.gather(*(customer.call(*calls[name]) for name in READS))
        return all(response.status_code == 200 for response in responses)

    await eventually(reads_succeed, within=30)
    assert await system.contents() == before
    assert (await customer.place_order(product))["status"] == "CONFIRMED"


async def test_an_order_that_takes_too_long_times_out_and_can_be_repeated(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    body = {"items": [{"product_id": product, "quantity": 1}]}
    key = {"Idempotency-Key": "again"}
    async with system.paused("inventory_service"):
        response = await customer.call("POST", "/v1/orders", body, key)
        assert problem(response) == (504, "timeout")
    response = await customer.call("POST", "/v1/orders", body, key)
    assert response.status_code == 201
    assert (await customer.get("/v1/orders"))["orders"][0]["id"] == response.json()["id"]
    placed = await system.orders.value(
        "SELECT count(*) FROM orders WHERE user_id = $1", customer.user_id
    )
    assert placed == 1
