"""Events that pile up while the consumer is away, and how fast they drain when it is back."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks import cpu
from benchmarks.shop import Shop, now
from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceStub
from service_kit.grpc.client import call, open_channel

_CONSUMER = "consumer_service"
_SERVICE = "ecommerce.order.v1.OrderService"
_TOGETHER = 250
_SENDERS = 2
_SECONDS = 600
# Now and then and to the first row only: counting would slow down what is measured.
_LOOK_SECONDS = 0.5
_LEFT = "SELECT EXISTS (SELECT FROM orders WHERE status = 'PENDING')"
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
        _stop(shop, _CONSUMER)
        since = now()
        placed = await _place(shop, events, tell)
        await _while(connection, _UNSENT, lambda s: tell(f"backlog: publishing for {s} s"))
        before = cpu.seconds(shop.system.pids())
        shop.system.supervisor.start_program(_CONSUMER)
        shop.pids = shop.system.pids()
        await _while(connection, _LEFT, lambda s: tell(f"backlog: draining for {s} s"))
        spent = cpu.spent_by_program(before, cpu.seconds(shop.pids))
        memory = cpu.most_mib(shop.pids[_CONSUMER])
        row = await connection.fetchrow(_SETTLED, since)
    finally:
        await connection.close()
    shop.account(placed, events - placed, row["orders"])
    settled = max(1, row["orders"])
    by_program = {name: 1000 * used / settled for name, used in spent.items()}
    return Backlog(row["orders"], settled / (row["seconds"] or 1), memory, by_program)


async def _place(shop: Shop, events: int, tell: Callable[[str], None]) -> int:
    """Place orders as fast as may be; how many were accepted."""
    accepted = 0
    address = f"localhost:{shop.system.environment['ORDER_SERVICE_PORT']}"
    channel = open_channel(address, _SERVICE)
    stub = OrderServiceStub(channel)
    choose = random.Random(1)
    starts = iter(range(0, events, _TOGETHER))

    async def send() -> None:
        nonlocal accepted
        for start in starts:
            count = min(_TOGETHER, events - start)
            batch = order_pb2.BatchCreateOrdersRequest(
                requests=[_request(shop, choose) for _ in range(count)]
            )
            answer = await call(stub.BatchCreateOrders, batch, timeout=30)
            accepted += sum(result.HasField("order") for result in answer.results)
            tell(f"backlog: {start + count:,} of {events:,} orders placed without the consumer")

    try:
        await asyncio.gather(*(send() for _ in range(_SENDERS)))
    finally:
        await channel.close()
    return accepted


def _request(shop: Shop, choose: random.Random) -> order_pb2.CreateOrderRequest:
    items = [
        order_pb2.NewOrderItem(product_id=product_id, quantity=1)
        for product_id in choose.sample(range(1, shop.products + 1), choose.randint(1, 5))
    ]
    return order_pb2.CreateOrderRequest(user_id=choose.choice(list(shop.customers)), items=items)


async def _while(connection: Any, condition: str, tell: Callable[[int], None]) -> None:
    """Wait as long as a statement answers true; `tell` hears for how many seconds."""
    started = time.monotonic()
    async with asyncio.timeout(_SECONDS):
        while await connection.fetchval(condition):
            tell(int(time.monotonic() - started))
            await asyncio.sleep(_LOOK_SECONDS)


def _stop(shop: Shop, program: str) -> None:
    socket = shop.system.run_dir / "sockets" / "supervisord.sock"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{socket}"]
    subprocess.run([*command, "stop", program], check=True, stdout=subprocess.DEVNULL, timeout=60)
