"""What the parts can do by themselves, on the same machine in the same run."""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
import uvloop
from order_service.events import order_event
from order_service.models import Caller, Draft, Item, Order, Status
from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from benchmarks import load, system
from benchmarks.shop import Shop
from benchmarks.stub import SERVICE_NAME
from launcher.ports import free_port
from launcher.supervisor.health import http_ready
from order_service import storage
from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceStub
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.health import is_serving
from service_kit.postgres.engine import autocommit, open_engine
from service_kit.postgres.migrations import migrate
from service_kit.rabbitmq.batch_publish import Message, PublishOutcome, publish_batch

CLIENTS = 64
ITEMS = 3
_READY_SECONDS = 30
_QUEUE = "benchmark.confirmed"
_DATABASE = "benchmark_limits"


@dataclass(frozen=True)
class Limit:
    """How many a second a part can do with nothing behind it."""

    name: str
    per_second: float


def measure(shop: Shop, seconds: float) -> list[Limit]:
    """All limits, one after the other; call it once for a system."""
    with _stub(shop) as address:
        gateway = _gateway(shop, address, seconds)
        echo = uvloop.run(_echo(address, seconds))
    return [
        Limit("the gateway alone, an order service that does nothing behind it", gateway),
        Limit("gRPC echo: one call an order, no batches", echo),
        Limit(f"confirmed publishes, {CLIENTS} in a batch", uvloop.run(_publish(shop, seconds))),
        Limit(f"orders inserted, {CLIENTS} in a statement", uvloop.run(_insert(shop, seconds))),
    ]


@contextmanager
def _stub(shop: Shop) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    with _process(shop, "benchmarks.stub", address):
        _wait(lambda: is_serving(address))
        yield address


def _gateway(shop: Shop, orders_address: str, seconds: float) -> float:
    port = free_port()
    variables = {"API_GATEWAY_PORT": str(port), "ORDER_SERVICE_ADDR": orders_address}
    address = f"127.0.0.1:{port}"
    with _process(shop, "api_gateway", **variables):
        _wait(lambda: http_ready(address))
        file = shop.orders()
        load.closed(address, file, CLIENTS, min(1, seconds))
        return load.closed(address, file, CLIENTS, seconds).per_second


async def _echo(address: str, seconds: float) -> float:
    channel = open_channel(address, SERVICE_NAME)
    stub = OrderServiceStub(channel)
    items = [order_pb2.NewOrderItem(product_id=n, quantity=1) for n in range(1, ITEMS + 1)]
    request = order_pb2.CreateOrderRequest(user_id=1, items=items)

    async def once() -> int:
        await call(stub.CreateOrder, request, timeout=10)
        return 1

    try:
        return await _rate(once, CLIENTS, seconds)
    finally:
        await channel.close()


async def _publish(shop: Shop, seconds: float) -> float:
    body = order_event(_order(), Caller(), datetime.now(UTC)).body
    connection = await aio_pika.connect(shop.system.environment["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        queue = await channel.declare_queue(
            _QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        underlay = await channel.get_underlay_channel()

        async def once() -> int:
            messages = [
                Message(str(uuid.uuid4()), _QUEUE, body, "application/json", {})
                for _ in range(CLIENTS)
            ]
            outcomes = await publish_batch(underlay, "", messages, timeout=10)
            return outcomes.count(PublishOutcome.CONFIRMED)

        try:
            return await _rate(once, 1, seconds)
        finally:
            await queue.delete(if_unused=False, if_empty=False)


async def _insert(shop: Shop, seconds: float) -> float:
    url = await _create_database(shop)
    await migrate(url, Path(system.CHECKOUT, "order_service", "migrations"))
    async with open_engine(url, "benchmark") as engine, autocommit(engine) as connection:

        async def once() -> int:
            orders = [_order() for _ in range(CLIENTS)]
            now = orders[0].created_at
            new = [
                storage.NewOrder(order, Draft(order.user_id, ()), order_event(order, Caller(), now))
                for order in orders
            ]
            return len(await storage.insert_orders(connection, new, now))

        return await _rate(once, 1, seconds)


async def _create_database(shop: Shop) -> str:
    await shop.system.administer(f"CREATE DATABASE {_DATABASE}")
    return (
        make_url(shop.system.admin_url)
        .set(database=_DATABASE)
        .render_as_string(hide_password=False)
    )


def _order() -> Order:
    now = datetime.now(UTC)
    items = [Item(n, f"Product {n}", 1, 500) for n in range(1, ITEMS + 1)]
    return Order(uuid7(), 1, Status.PENDING, items, 500 * ITEMS, now, now)


async def _rate(once: Callable[[], Awaitable[int]], tasks: int, seconds: float) -> float:
    """How much per second `tasks` get done that each do `once` again and again."""
    started = time.monotonic()
    done = 0

    async def repeat() -> None:
        nonlocal done
        while time.monotonic() < started + seconds:
            # In two steps: `done += await …` would read it before the others have added theirs.
            finished = await once()
            done += finished

    await asyncio.gather(*(repeat() for _ in range(tasks)))
    return done / (time.monotonic() - started)


@contextmanager
def _process(shop: Shop, module: str, *arguments: str, **variables: str) -> Iterator[None]:
    """A Python module that runs inside the block, in the environment of the shop's services."""
    with (shop.system.run_dir / "logs" / f"{module}-alone.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=system.CHECKOUT,
            env={**shop.system.environment, **variables},
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("a part that was to be measured alone does not start")
        time.sleep(0.1)
