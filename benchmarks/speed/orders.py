"""One measurement of placing orders: throughput, latency, CPU by program, batch sizes, stages."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal

from uuid_utils.compat import uuid7

from benchmarks.load import loops
from benchmarks.load.loops import LoadResult
from benchmarks.system import checks
from benchmarks.system.processes import CpuMeter
from benchmarks.system.shop import Shop

# Selected by order id, which ascends in time: a million old orders need not be read.
# An order's `updated_at` is when it was settled; all orders of a batch have the same times.
_ORDERS = """
SELECT count(*) AS stored,
    count(*)::float / nullif(count(DISTINCT created_at), 0) AS accept_batch,
    count(*)::float / nullif(count(DISTINCT updated_at), 0) AS settle_batch,
    extract(epoch FROM max(updated_at) - min(created_at))::float AS seconds,
    1000 * percentile_cont(0.5) WITHIN GROUP (
        ORDER BY extract(epoch FROM updated_at - created_at)::float) AS p50,
    1000 * percentile_cont(0.99) WITHIN GROUP (
        ORDER BY extract(epoch FROM updated_at - created_at)::float) AS p99
FROM orders WHERE id >= $1
"""
_RELAY_BATCH = """
SELECT count(*)::float / nullif(count(DISTINCT sent_at), 0) FROM outbox WHERE order_id >= $1
"""
_STOCK_BATCH = """
SELECT count(*)::float / nullif(count(DISTINCT created_at), 0) FROM reservations
WHERE order_id >= $1
"""
_SAMPLE = """
SELECT orders.id, orders.created_at, created.sent_at
FROM orders JOIN outbox AS created
    ON created.order_id = orders.id AND created.type = 'order.created'
WHERE orders.id >= $1 AND created.order_id >= $1 AND created.sent_at IS NOT NULL LIMIT 2000
"""
_DEDUCTED = "SELECT order_id, created_at FROM reservations WHERE order_id = ANY($1)"


@dataclass(frozen=True)
class Measurement:
    """How fast orders were placed and what they cost; CPU in ms of processor time per order."""

    loop: Literal["closed", "open"]
    clients: int
    """In an open loop: the clients of the closed loop that it is compared with."""
    offered_per_second: float
    """In an open loop; 0 in a closed loop."""
    load: LoadResult
    stored: int
    settled_per_second: float
    """From the first order accepted to the last one settled."""
    settle_milliseconds: dict[str, float]
    """From accepted to settled: p50 and p99."""
    stages_milliseconds: dict[str, float]
    """Medians, from accepted: published, deducted (from stock), settled."""
    cpu_milliseconds: dict[str, float]
    """By program, with PostgreSQL and RabbitMQ."""
    batches: dict[str, float]
    """Mean number of orders (relay: events) per batch, by hop: accept, relay, stock, settle."""
    others_percent: float
    """Share of the machine that processes used which are no part of the measurement."""

    @property
    def cpu_per_order(self) -> float:
        """Of all programs together."""
        return sum(self.cpu_milliseconds.values())

    @property
    def generator_milliseconds(self) -> float:
        """CPU of the load generator, per response."""
        return 1000 * self.load.cpu_seconds / max(1, self.load.responses)


def measure(shop: Shop, clients: int, seconds: float, rate: float = 0) -> Measurement:
    """Orders by `clients` in a closed loop; with a `rate` per second, in an open loop."""
    file = shop.write_orders()
    since = uuid7()
    meter = CpuMeter(shop.pids)
    load = _send(shop, file, clients, seconds, rate)
    checks.wait_until_settled(shop)
    usage = meter.read(shop.pids)
    file.unlink()
    found = asyncio.run(_query(shop, since))
    stored = found["stored"]
    shop.count_orders(accepted=load.succeeded, unconfirmed=load.unconfirmed, stored=stored)
    return Measurement(
        loop="open" if rate else "closed",
        clients=clients,
        offered_per_second=rate,
        load=load,
        stored=stored,
        settled_per_second=stored / (found["seconds"] or 1),
        settle_milliseconds={"p50": found["p50"] or 0.0, "p99": found["p99"] or 0.0},
        stages_milliseconds=found["stages"] | {"settled": found["p50"] or 0.0},
        cpu_milliseconds={
            name: 1000 * used / max(1, stored) for name, used in usage.seconds.items()
        },
        batches=found["batches"],
        others_percent=usage.others_percent,
    )


def place_orders(shop: Shop, clients: int, seconds: float) -> LoadResult:
    """Place orders in a closed loop without measuring them, and wait until they are settled."""
    file = shop.write_orders()
    result = checks.send_orders(shop, lambda: _send(shop, file, clients, seconds, 0))
    file.unlink()
    return result


def _send(shop: Shop, file: Path, clients: int, seconds: float, rate: float) -> LoadResult:
    if rate:
        return loops.open_loop(shop.system.gateway, file, rate, seconds)
    return loops.closed_loop(shop.system.gateway, file, clients, seconds)


async def _query(shop: Shop, since: uuid.UUID) -> dict[str, Any]:
    """What the databases know about the orders placed since then."""
    system = shop.system
    async with system.connect("order") as orders, system.connect("inventory") as inventory:
        found = dict(await orders.fetchrow(_ORDERS, since))
        found["batches"] = {
            "accept": found["accept_batch"] or 0.0,
            "relay": await orders.fetchval(_RELAY_BATCH, since) or 0.0,
            "stock": await inventory.fetchval(_STOCK_BATCH, since) or 0.0,
            "settle": found["settle_batch"] or 0.0,
        }
        sample = await orders.fetch(_SAMPLE, since)
        deducted = dict(await inventory.fetch(_DEDUCTED, [row["id"] for row in sample]))
    found["stages"] = {
        "published": _median_ms([row["sent_at"] - row["created_at"] for row in sample]),
        "deducted": _median_ms(
            [deducted[row["id"]] - row["created_at"] for row in sample if row["id"] in deducted]
        ),
    }
    return found


def _median_ms(durations: Sequence[timedelta]) -> float:
    return 1000 * median([each.total_seconds() for each in durations]) if durations else 0.0
