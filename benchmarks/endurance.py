"""Many orders in a row: whether memory stays flat, and delivered outbox rows go away."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import checks, cpu, load
from benchmarks.shop import Shop
from launcher.errors import LauncherError

CLIENTS = 64
_SWEEP_SECONDS = 15
"""Rows are deleted every few seconds, so they may become older than the retention by this."""
_PRUNED_WITHIN_SECONDS = 600
_OLDEST = "SELECT extract(epoch FROM now() - min(sent_at))::float FROM outbox"
_ROWS = "SELECT count(*) FROM outbox"


@dataclass(frozen=True)
class Endurance:
    """Memory by program over the orders placed, and the outbox's size."""

    orders: list[int]
    memory_mib: dict[str, list[float]]
    """At each of `orders`; only the program's own process."""
    outbox_rows: list[int]
    retention_seconds: int
    """The OUTBOX_RETENTION_SECONDS of the shop's system."""
    oldest_delivered_seconds: float
    """Age of the oldest delivered row right after the last order."""
    pruned_after_seconds: float
    """How much later no row was older than the retention and 15 s; -1: not in ten minutes."""


def endure(
    shop: Shop, orders: int, seconds: float, retention_seconds: int, tell: Callable[[str], None]
) -> Endurance:
    """Place `orders` in portions of `seconds` and look at memory and outbox after each."""
    placed, counts, rows = 0, list[int](), list[int]()
    memory: dict[str, list[float]] = {name: [] for name in shop.pids}
    while placed < orders:
        tell(f"endurance: {placed:,} of {orders:,} orders")
        placed += _portion(shop, seconds)
        counts.append(placed)
        rows.append(int(asyncio.run(_ask(shop, _ROWS))))
        for name, mib in cpu.memory_mib(shop.pids).items():
            memory[name].append(mib)
    oldest = asyncio.run(_ask(shop, _OLDEST))
    pruned = _pruned(shop, retention_seconds + _SWEEP_SECONDS, tell)
    return Endurance(counts, memory, rows, retention_seconds, oldest, pruned)


def _portion(shop: Shop, seconds: float) -> int:
    file = shop.orders()
    outcome = checks.place(shop, lambda: load.closed(shop.system.gateway, file, CLIENTS, seconds))
    file.unlink()
    if not outcome.good:
        raise LauncherError("the system accepts no orders any more")
    return outcome.good


def _pruned(shop: Shop, allowed_seconds: float, tell: Callable[[str], None]) -> float:
    started = time.monotonic()
    while (age := asyncio.run(_ask(shop, _OLDEST))) > allowed_seconds:
        waited = time.monotonic() - started
        if waited > _PRUNED_WITHIN_SECONDS:
            return -1
        tell(f"endurance: the oldest delivered event is {age:.0f} s old, {waited:.0f} s waited")
        time.sleep(2)
    return time.monotonic() - started


async def _ask(shop: Shop, statement: str) -> float:
    connection = await shop.system.connect("order")
    try:
        return float(await connection.fetchval(statement) or 0)
    finally:
        await connection.close()
