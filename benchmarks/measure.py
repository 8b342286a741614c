"""One measurement of placing orders: throughput, latency, CPU by process, batches, stages."""

import asyncio
import os
import resource
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import checks, cpu, load
from benchmarks.load import Outcome
from benchmarks.shop import Shop, now

# By order ids, which ascend in time: a million old orders need not be read for it.
# An order's `updated_at` is when it was settled; all orders of a batch have the same times.
_ORDERS = """
SELECT count(*) AS stored,
    count(*)::float / nullif(count(DISTINCT created_at), 0) AS accepted_together,
    count(*)::float / nullif(count(DISTINCT updated_at), 0) AS settled_together,
    extract(epoch FROM max(updated_at) - min(created_at))::float AS seconds,
    1000 * percentile_cont(0.5) WITHIN GROUP (
        ORDER BY extract(epoch FROM updated_at - created_at)::float) AS p50,
    1000 * percentile_cont(0.99) WITHIN GROUP (
        ORDER BY extract(epoch FROM updated_at - created_at)::float) AS p99
FROM orders WHERE id >= $1
"""
_PUBLISHED = """
SELECT count(*)::float / nullif(count(DISTINCT sent_at), 0) FROM outbox WHERE order_id >= $1
"""
_TAKEN = """
SELECT count(*)::float / nullif(count(DISTINCT created_at), 0) FROM reservations
WHERE order_id >= $1
"""
_SAMPLE = """
SELECT orders.id, created.sent_at - orders.created_at AS published, orders.created_at
FROM orders JOIN outbox AS created
    ON created.order_id = orders.id AND created.type = 'order.created'
WHERE orders.id >= $1 AND created.order_id >= $1 AND created.sent_at IS NOT NULL LIMIT 2000
"""
_SAMPLE_TAKEN = "SELECT order_id, created_at FROM reservations WHERE order_id = ANY($1)"


@dataclass(frozen=True)
class Measurement:
    """What placing orders cost and how fast it was; all CPU in ms of processor time an order."""

    loop: str
    clients: int
    offered_per_second: float
    """In open loop; 0 in closed loop."""
    outcome: Outcome
    stored: int
    accepted_per_second: float
    settled_per_second: float
    """From the first order accepted to the last one settled."""
    settle_milliseconds: dict[str, float]
    """From accepted to settled: p50 and p99."""
    stages_milliseconds: dict[str, float]
    """Medians, from accepted: published, taken from stock, settled."""
    cpu_milliseconds: dict[str, float]
    """By program, PostgreSQL and RabbitMQ included."""
    generator_milliseconds: float
    batches: dict[str, float]
    """Mean number of orders (relay: events) that travelled together, by hop."""
    others_percent: float
    """Share of the machine that was used by processes which have no part in this."""

    @property
    def cpu_per_order(self) -> float:
        """Of all programs together."""
        return sum(self.cpu_milliseconds.values())


def closed(shop: Shop, clients: int, seconds: float) -> Measurement:
    """Orders by `clients` that each wait for an answer before they place the next one."""
    return _measure(
        shop,
        "closed",
        clients,
        0,
        lambda file: load.closed(shop.system.gateway, file, clients, seconds),
    )


def open_loop(shop: Shop, clients: int, rate: float, seconds: float) -> Measurement:
    """Orders that arrive `rate` times a second; `clients` only says what it is compared with."""
    return _measure(
        shop,
        "open",
        clients,
        rate,
        lambda file: load.open_loop(shop.system.gateway, file, rate, seconds),
    )


def warm_up(shop: Shop, clients: int, seconds: float = 1) -> None:
    """Place orders that are not measured, and wait until they are settled."""
    file = shop.orders()
    checks.place(shop, lambda: load.closed(shop.system.gateway, file, clients, seconds))


def _measure(
    shop: Shop, loop: str, clients: int, rate: float, send: Callable[[Path], Outcome]
) -> Measurement:
    file = shop.orders()
    since, others = now(), _Others()
    before = cpu.seconds(shop.pids)
    outcome = send(file)
    checks.settle(shop)
    spent = cpu.spent_by_program(before, cpu.seconds(shop.pids))
    others_percent = others.percent(sum(spent.values()))
    file.unlink()
    found = asyncio.run(_look(shop, since))
    shop.account(outcome.good, outcome.unknown, found["stored"])
    stored = max(1, found["stored"])
    return Measurement(
        loop=loop,
        clients=clients,
        offered_per_second=rate,
        outcome=outcome,
        stored=found["stored"],
        accepted_per_second=outcome.per_second,
        settled_per_second=found["stored"] / (found["seconds"] or 1),
        settle_milliseconds={"p50": found["p50"] or 0.0, "p99": found["p99"] or 0.0},
        stages_milliseconds=found["stages"] | {"settled": found["p50"] or 0.0},
        cpu_milliseconds={name: 1000 * used / stored for name, used in spent.items()},
        generator_milliseconds=1000 * outcome.cpu_seconds / max(1, outcome.answered),
        batches=found["batches"],
        others_percent=others_percent,
    )


async def _look(shop: Shop, since: uuid.UUID) -> dict[str, Any]:
    orders = await shop.system.connect("order")
    inventory = await shop.system.connect("inventory")
    try:
        found = dict(await orders.fetchrow(_ORDERS, since))
        found["batches"] = {
            "accept": found["accepted_together"] or 0.0,
            "relay": await orders.fetchval(_PUBLISHED, since) or 0.0,
            "stock": await inventory.fetchval(_TAKEN, since) or 0.0,
            "settle": found["settled_together"] or 0.0,
        }
        sample = await orders.fetch(_SAMPLE, since)
        ids = [row["id"] for row in sample]
        taken = {row[0]: row[1] for row in await inventory.fetch(_SAMPLE_TAKEN, ids)}
    finally:
        await orders.close()
        await inventory.close()
    found["stages"] = {
        "published": _median_ms([row["published"] for row in sample]),
        "taken": _median_ms(
            [taken[row["id"]] - row["created_at"] for row in sample if row["id"] in taken]
        ),
    }
    return found


def _median_ms(deltas: list[Any]) -> float:
    return 1000 * median([delta.total_seconds() for delta in deltas]) if deltas else 0.0


class _Others:
    """What the rest of the machine does meanwhile, which spoils measurements."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._machine = cpu.machine_seconds()
        self._ours = _own_seconds()

    def percent(self, spent_by_system: float) -> float:
        ours = _own_seconds() - self._ours + spent_by_system
        there_is = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        return max(0.0, 100 * (cpu.machine_seconds() - self._machine - ours) / there_is)


def _own_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)
