"""Events that pile up while the consumer is away, and how fast they drain when it is back."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks import cpu
from benchmarks.shop import Shop
from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceStub
from service_kit.grpc_client import call, open_channel

_CONSUMER = "consumer_service"
_SERVICE = "ecommerce.order.v1.OrderService"
_TOGETHER = 250
_SENDERS = 2
_SECONDS = 600
_LEFT = "SELECT count(*) FROM orders WHERE status = 'PENDING'"
_UNSENT = "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
_SETTLED = """
SELECT count(*) AS orders, extract(epoch FROM max(updated_at) - min(updated_at))::float AS seconds
FROM orders WHERE created_at >= $1 AND status = 'CONFIRMED'
"""


@dataclass(frozen=True)
class Backlog:
    """How a backlog drained."""

    events: int
    per_second: float
    """Orders settled a second, from the first one to the last."""
    consumer_mib: float
    """The most memory that the consumer had meanwhile."""
    cpu_milliseconds: dict[str, float]
    """An order, by program, from the consumer's start until all were settled."""


def drain(shop: Shop, events: int, tell: Callable[[str], None]) -> Backlog:
    """Stop the consumer, place `events` orders, start it again and wait until all are settled."""
    return uvloop.run(_drain(shop, events, tell))


async def _drain(shop: Shop, events: int, tell: Callable[[str], None]) -> Backlog:
    connection = await shop.system.connect("order")
    try:
        _supervisorctl(shop, "stop", _CONSUMER)
        since = await connection.fetchval("SELECT clock_timestamp()")
        await _place(shop, events, tell)
        while unsent := await connection.fetchval(_UNSENT):
            tell(f"backlog: {unsent:,} events to publish")
            await asyncio.sleep(0.2)
        _supervisorctl(shop, "start", _CONSUMER)
        shop.pids = shop.system.pids()
        before = cpu.seconds(shop.pids)
        memory = await _watch(shop, connection, tell)
        spent = cpu.spent_by_program(before, cpu.seconds(shop.pids))
        row = await connection.fetchrow(_SETTLED, since)
    finally:
        await connection.close()
    settled = max(1, row["orders"])
    by_program = {name: 1000 * used / settled for name, used in spent.items()}
    return Backlog(row["orders"], settled / (row["seconds"] or 1), memory, by_program)


async def _place(shop: Shop, events: int, tell: Callable[[str], None]) -> None:
    address = f"localhost:{shop.system.environment['ORDER_SERVICE_PORT']}"
    channel = open_channel(address, _SERVICE)
    stub = OrderServiceStub(channel)
    choose = random.Random(1)
    starts = iter(range(0, events, _TOGETHER))

    async def send() -> None:
        for start in starts:
            count = min(_TOGETHER, events - start)
            batch = order_pb2.BatchCreateOrdersRequest(
                requests=[_request(shop, choose) for _ in range(count)]
            )
            answer = await call(stub.BatchCreateOrders, batch, timeout=30)
            stored = sum(result.HasField("order") for result in answer.results)
            shop.placed += stored
            shop.unknown += count - stored
            tell(f"backlog: {start + count:,} of {events:,} orders placed without the consumer")

    try:
        await asyncio.gather(*(send() for _ in range(_SENDERS)))
    finally:
        await channel.close()


def _request(shop: Shop, choose: random.Random) -> order_pb2.CreateOrderRequest:
    items = [
        order_pb2.NewOrderItem(product_id=product_id, quantity=1)
        for product_id in choose.sample(range(1, shop.products + 1), choose.randint(1, 5))
    ]
    return order_pb2.CreateOrderRequest(user_id=choose.choice(list(shop.customers)), items=items)


async def _watch(shop: Shop, connection: Any, tell: Callable[[str], None]) -> float:
    """Wait until everything is settled; the consumer's largest memory in MiB."""
    consumer = {_CONSUMER: shop.pids[_CONSUMER]}
    most = 0.0
    async with asyncio.timeout(_SECONDS):
        while left := await connection.fetchval(_LEFT):
            most = max(most, *cpu.memory_mib(consumer).values())
            tell(f"backlog: {left:,} orders to settle, consumer at {most:.0f} MiB")
            await asyncio.sleep(0.2)
    return max(most, *cpu.memory_mib(consumer).values())


def _supervisorctl(shop: Shop, action: str, program: str) -> None:
    socket = shop.system.run_dir / "sockets" / "supervisord.sock"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{socket}"]
    subprocess.run([*command, action, program], check=True, stdout=subprocess.DEVNULL, timeout=60)
