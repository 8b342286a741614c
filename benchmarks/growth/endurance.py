"""Many orders in a row: whether memory stays flat and sent outbox rows are pruned."""

import time
from dataclasses import dataclass

from benchmarks.progress import Update
from benchmarks.speed.orders import place_orders
from benchmarks.system.processes import memory_mib
from benchmarks.system.shop import Shop
from launcher.errors import LauncherError

CLIENTS = 64
_PRUNE_SECONDS = 15
"""Rows are pruned every few seconds, so they may exceed the retention by this."""
_MAX_PRUNE_SECONDS = 600
_OLDEST = "SELECT coalesce(extract(epoch FROM now() - min(sent_at)), 0)::float FROM outbox"
_ROWS = "SELECT count(*) FROM outbox"


@dataclass(frozen=True)
class Endurance:
    """Memory by program and size of the outbox, over the orders placed."""

    orders: list[int]
    memory_mib: dict[str, list[float]]
    """At each of `orders`; only the program's own process."""
    outbox_rows: list[int]
    """At each of `orders`."""
    retention_seconds: int
    """OUTBOX_RETENTION_SECONDS of the system."""
    oldest_sent_seconds: float
    """Age of the oldest sent row right after the last order."""
    pruned_after_seconds: float
    """When no row exceeded the retention by over 15 s any more; -1: not within 10 minutes."""


def endure(
    shop: Shop, orders: int, seconds: float, retention_seconds: int, update: Update
) -> Endurance:
    """Place `orders` in portions of `seconds`; read memory and outbox after each."""
    placed, counts, rows = 0, list[int](), list[int]()
    memory: dict[str, list[float]] = {name: [] for name in shop.pids}
    while placed < orders:
        update(f"endurance: {placed:,} of {orders:,} orders")
        portion = place_orders(shop, CLIENTS, seconds).succeeded
        if not portion:
            raise LauncherError("the system accepts no more orders")
        placed += portion
        counts.append(placed)
        rows.append(shop.system.fetch_value("order", _ROWS))
        for name, mib in memory_mib(shop.pids).items():
            memory[name].append(mib)
    oldest = shop.system.fetch_value("order", _OLDEST)
    pruned = _wait_until_pruned(shop, retention_seconds + _PRUNE_SECONDS, update)
    return Endurance(counts, memory, rows, retention_seconds, oldest, pruned)


def _wait_until_pruned(shop: Shop, max_age_seconds: float, update: Update) -> float:
    started = time.monotonic()
    while (age := shop.system.fetch_value("order", _OLDEST)) > max_age_seconds:
        waited = time.monotonic() - started
        if waited > _MAX_PRUNE_SECONDS:
            return -1
        update(f"endurance: the oldest sent event is {age:.0f} s old after {waited:.0f} s")
        time.sleep(2)
    return time.monotonic() - started
