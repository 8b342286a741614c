"""How fast each component is alone, on the same machine in the same run."""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aio_pika
import uvloop
from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from benchmarks.load.loops import closed_loop
from benchmarks.speed.order_stub import SERVICE_NAME
from benchmarks.system.launch import CHECKOUT
from benchmarks.system.shop import Shop
from launcher.ports import free_port
from launcher.supervisor.health import http_ready
from order_service.domain import NewOrder, Order, OrderItem, OrderRequest, OrderStatus
from order_service.outbox.events import order_event
from order_service.repository import insert_orders
from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceStub
from service_kit.context import CallContext
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.health import is_serving
from service_kit.postgres.engine import autocommit, open_engine
from service_kit.postgres.migrations import migrate
from service_kit.rabbitmq.batch_publish import Message, PublishOutcome, publish_batch

CLIENTS = 64
ITEMS = 3
_READY_SECONDS = 30
_QUEUE = "benchmark.confirmed"
_DATABASE = "benchmark_components"


@dataclass(frozen=True)
class Component:
    """How many orders per second a component handles alone."""

    name: str
    per_second: float


def measure(shop: Shop, seconds: float) -> list[Component]:
    """Each component, one after the other; call it once per system."""
    with _order_stub(shop) as address:
        gateway = _measure_gateway(shop, address, seconds)
        calls = uvloop.run(_measure_calls(address, seconds))
    publishes = uvloop.run(_measure_publishes(shop, seconds))
    inserts = uvloop.run(_measure_inserts(shop, seconds))
    return [
        Component("api_gateway with a stub of order_service", gateway),
        Component("gRPC calls, one per order", calls),
        Component(f"confirmed publishes, {CLIENTS} per batch", publishes),
        Component(f"orders inserted, {CLIENTS} per statement", inserts),
    ]


@contextmanager
def _order_stub(shop: Shop) -> Iterator[str]:
    """The address of a stub of order_service that runs inside the block."""
    address = f"127.0.0.1:{free_port()}"
    with _process(shop, "benchmarks.speed.order_stub", address):
        _wait_until(lambda: is_serving(address))
        yield address


def _measure_gateway(shop: Shop, order_address: str, seconds: float) -> float:
    port = free_port()
    address = f"127.0.0.1:{port}"
    variables = {"API_GATEWAY_PORT": str(port), "ORDER_SERVICE_ADDR": order_address}
    with _process(shop, "api_gateway", **variables):
        _wait_until(lambda: http_ready(address))
        file = shop.write_orders()
        closed_loop(address, file, CLIENTS, min(1, seconds))
        return closed_loop(address, file, CLIENTS, seconds).per_second


async def _measure_calls(address: str, seconds: float) -> float:
    channel = open_channel(address, SERVICE_NAME)
    stub = OrderServiceStub(channel)
    items = [order_pb2.NewOrderItem(product_id=n, quantity=1) for n in range(1, ITEMS + 1)]
    request = order_pb2.CreateOrderRequest(user_id=1, items=items)

    async def call_once() -> int:
        await call(stub.CreateOrder, request, timeout=10)
        return 1

    try:
        return await _rate(call_once, CLIENTS, seconds)
    finally:
        await channel.close()


async def _measure_publishes(shop: Shop, seconds: float) -> float:
    body = order_event(_order(), CallContext(), datetime.now(UTC)).body
    connection = await aio_pika.connect(shop.system.environment["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        queue = await channel.declare_queue(
            _QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        underlay = await channel.get_underlay_channel()

        async def publish_once() -> int:
            messages = [
                Message(str(uuid.uuid4()), _QUEUE, body, "application/json", {})
                for _ in range(CLIENTS)
            ]
            outcomes = await publish_batch(underlay, "", messages, timeout=10)
            return outcomes.count(PublishOutcome.CONFIRMED)

        try:
            return await _rate(publish_once, 1, seconds)
        finally:
            await queue.delete(if_unused=False, if_empty=False)


async def _measure_inserts(shop: Shop, seconds: float) -> float:
    await shop.system.execute_as_admin(f"CREATE DATABASE {_DATABASE}")
    admin_url = make_url(shop.system.admin_url)
    url = admin_url.set(database=_DATABASE).render_as_string(hide_password=False)
    await migrate(url, "order_service")
    async with open_engine(url, "benchmark") as engine, autocommit(engine) as connection:

        async def insert_once() -> int:
            orders = [_order() for _ in range(CLIENTS)]
            now = orders[0].created_at
            new = [
                NewOrder(
                    order, OrderRequest(order.user_id, ()), order_event(order, CallContext(), now)
                )
                for order in orders
            ]
            return len(await insert_orders(connection, new, now))

        return await _rate(insert_once, 1, seconds)


def _order() -> Order:
    now = datetime.now(UTC)
    items = [OrderItem(n, f"Product {n}", 1, 500) for n in range(1, ITEMS + 1)]
    return Order(uuid7(), 1, OrderStatus.PENDING, items, 500 * ITEMS, now, now)


async def _rate(once: Callable[[], Awaitable[int]], tasks: int, seconds: float) -> float:
    """How much per second `tasks` finish that repeat `once`, which returns how much it did."""
    started = time.monotonic()
    total = 0

    async def repeat() -> None:
        nonlocal total
        while time.monotonic() < started + seconds:
            # In two steps: `total += await …` would read it before other tasks add to it.
            finished = await once()
            total += finished

    await asyncio.gather(*(repeat() for _ in range(tasks)))
    return total / (time.monotonic() - started)


@contextmanager
def _process(shop: Shop, module: str, *arguments: str, **variables: str) -> Iterator[None]:
    """Run a Python module inside the block, with the environment of the shop's services."""
    path = shop.system.run_dir / "logs" / f"{module}-alone.log"
    command = [sys.executable, "-m", module, *arguments]
    environment = {**shop.system.environment, **variables}
    with (
        path.open("wb") as log,
        subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def _wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("a component does not start alone")
        time.sleep(0.1)
