"""Events that queue up while the consumer is stopped, and how fast they drain afterwards."""

import asyncio
import random
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Any

import uvloop
from uuid_utils.compat import uuid7

from benchmarks.load.requests import choose_products
from benchmarks.progress import Update
from benchmarks.system.processes import CpuMeter, peak_memory_mib
from benchmarks.system.shop import Shop
from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceStub
from service_kit.grpc.client import call, open_channel

_CONSUMER = "consumer_service"
_SERVICE = "ecommerce.order.v1.OrderService"
_BATCH_SIZE = 250
_SENDERS = 2
_MAX_SECONDS = 600
# Rarely, and only to the first row: counting would slow down what is measured.
_POLL_SECONDS = 0.5
_PENDING = "SELECT EXISTS (SELECT FROM orders WHERE status = 'PENDING')"
_UNSENT = "SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL)"
_SETTLED = """
SELECT count(*) AS orders, extract(epoch FROM max(updated_at) - min(updated_at))::float AS seconds
FROM orders WHERE id >= $1 AND status = 'CONFIRMED'
"""


@dataclass(frozen=True)
class Backlog:
    """How a backlog drained."""

    events: int
    per_second: float
    """Orders settled per second, from the first one to the last."""
    consumer_mib: float
    """Peak memory of the consumer."""
    cpu_milliseconds: dict[str, float]
    """Per order, by program, from the consumer's start until all orders were settled."""


def drain(shop: Shop, events: int, update: Update) -> Backlog:
    """Stop the consumer, place `events` orders, start it again and wait until all are settled."""
    _stop_consumer(shop)
    since = uuid7()
    accepted = uvloop.run(_place_orders(shop, events, update))
    asyncio.run(_wait_while(shop, _UNSENT, "backlog: publishing", update))
    meter = CpuMeter(shop.system.pids())
    shop.system.supervisor.start_program(_CONSUMER)
    shop.pids = shop.system.pids()
    asyncio.run(_wait_while(shop, _PENDING, "backlog: draining", update))
    usage = meter.read(shop.pids)
    peak = peak_memory_mib(shop.pids[_CONSUMER])
    settled, seconds = asyncio.run(_settled(shop, since))
    shop.count_orders(accepted=accepted, unconfirmed=events - accepted, stored=settled)
    per_order = {name: 1000 * used / max(1, settled) for name, used in usage.seconds.items()}
    return Backlog(settled, settled / (seconds or 1), peak, per_order)


async def _place_orders(shop: Shop, events: int, update: Update) -> int:
    """Place orders as fast as possible; returns how many were accepted."""
    accepted = 0
    address = f"localhost:{shop.system.environment['ORDER_SERVICE_PORT']}"
    channel = open_channel(address, _SERVICE)
    stub = OrderServiceStub(channel)
    chance = random.Random(1)
    starts = iter(range(0, events, _BATCH_SIZE))

    async def send() -> None:
        nonlocal accepted
        for start in starts:
            count = min(_BATCH_SIZE, events - start)
            requests = [_request(shop, chance) for _ in range(count)]
            batch = order_pb2.BatchCreateOrdersRequest(requests=requests)
            response = await call(stub.BatchCreateOrders, batch, timeout=30)
            accepted += sum(result.HasField("order") for result in response.results)
            update(f"backlog: {start + count:,} of {events:,} orders placed")

    try:
        await asyncio.gather(*(send() for _ in range(_SENDERS)))
    finally:
        await channel.close()
    return accepted


def _request(shop: Shop, chance: random.Random) -> order_pb2.CreateOrderRequest:
    items = [
        order_pb2.NewOrderItem(product_id=product_id, quantity=1)
        for product_id in choose_products(chance, shop.products)
    ]
    return order_pb2.CreateOrderRequest(user_id=chance.choice(list(shop.customers)), items=items)


async def _wait_while(shop: Shop, condition: str, name: str, update: Update) -> None:
    """Return once a statement returns false."""
    started = time.monotonic()
    async with shop.system.connect("order") as connection, asyncio.timeout(_MAX_SECONDS):
        while await connection.fetchval(condition):
            update(f"{name} for {time.monotonic() - started:.0f} s")
            await asyncio.sleep(_POLL_SECONDS)


async def _settled(shop: Shop, since: uuid.UUID) -> tuple[int, float]:
    """The orders settled since then, and the seconds from the first to the last."""
    async with shop.system.connect("order") as connection:
        row: Any = await connection.fetchrow(_SETTLED, since)
        return row["orders"], row["seconds"] or 0.0


def _stop_consumer(shop: Shop) -> None:
    socket = shop.system.run_dir / "sockets" / "supervisord.sock"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{socket}"]
    subprocess.run([*command, "stop", _CONSUMER], check=True, stdout=subprocess.DEVNULL, timeout=60)
