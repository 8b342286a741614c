"""Whether every order was settled, and stock and ledger are exact: otherwise a run is void."""

import asyncio
import time
import uuid
from collections.abc import Callable

import aio_pika

from benchmarks.load import Outcome
from benchmarks.shop import Shop, now
from benchmarks.system import System
from proto.events import DEAD_LETTER_QUEUE, INVENTORY_QUEUE

SETTLE_SECONDS = 180.0

# By indexes and to the first row only: whoever waits must not disturb what is measured.
_UNSETTLED = """
SELECT EXISTS (SELECT FROM orders WHERE status = 'PENDING')
    OR EXISTS (SELECT FROM outbox WHERE sent_at IS NULL)
"""
_NEWEST = "SELECT id FROM orders ORDER BY id DESC LIMIT 1"
_STORED = "SELECT count(*) FROM orders WHERE id >= $1"
_ORDERED = """
SELECT product_id, sum(quantity)::bigint AS quantity FROM order_items
JOIN orders ON orders.id = order_items.order_id AND orders.status = 'CONFIRMED'
GROUP BY product_id
"""
_DEDUCTED = """
SELECT product_id, -sum(delta)::bigint AS quantity FROM stock_movements
WHERE kind IN ('DEDUCT', 'RESTORE') GROUP BY product_id
"""
_WRONG_STOCK = """
SELECT count(*) FROM products
LEFT JOIN (
    SELECT product_id, sum(delta) AS total FROM stock_movements GROUP BY product_id
) AS ledger ON ledger.product_id = products.id
WHERE products.stock < 0 OR products.stock <> coalesce(ledger.total, 0)
"""


def place(shop: Shop, send: Callable[[], Outcome]) -> Outcome:
    """Place orders by `send` that are not measured, and wait until all are settled."""
    since = now()
    outcome = send()
    settle(shop)
    shop.account(outcome.good, outcome.unknown, asyncio.run(_count_stored(shop, since)))
    return outcome


def settle(shop: Shop) -> None:
    """Wait until no order is PENDING, no event unsent and no order new; complains if that fails."""
    asyncio.run(_settle(shop))


async def _settle(shop: Shop) -> None:
    connection = await shop.system.connect("order")
    deadline = time.monotonic() + SETTLE_SECONDS
    newest = None
    try:
        while True:
            # Those that were under way when the load ended may be stored only now.
            before, newest = newest, await connection.fetchval(_NEWEST)
            if newest == before and not await connection.fetchval(_UNSETTLED):
                return
            if time.monotonic() > deadline:
                late = f"orders or events did not get through in {SETTLE_SECONDS:.0f} s"
                shop.complaints.append(late)
                return
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def _count_stored(shop: Shop, since: uuid.UUID) -> int:
    connection = await shop.system.connect("order")
    try:
        return int(await connection.fetchval(_STORED, since))
    finally:
        await connection.close()


async def complaints(shop: Shop) -> list[str]:
    """What went wrong, and what is wrong at rest with orders, stock, ledger and queues."""
    await _settle(shop)
    found = [*shop.complaints]
    found += await _wrong_orders(shop)
    found += await _wrong_ledger(shop.system)
    found += await _waiting_messages(shop.system)
    return found


async def _wrong_orders(shop: Shop) -> list[str]:
    connection = await shop.system.connect("order")
    try:
        rows = await connection.fetch("SELECT status, count(*) AS n FROM orders GROUP BY status")
    finally:
        await connection.close()
    by_status = {row["status"]: row["n"] for row in rows}
    stored = sum(by_status.values()) - shop.past
    found = [f"{n} orders are {status}" for status, n in by_status.items() if status != "CONFIRMED"]
    if not shop.placed <= stored <= shop.placed + shop.unknown:
        found.append(
            f"{stored} orders are stored, {shop.placed} were accepted and of {shop.unknown}"
            " no answer is known"
        )
    return found


async def _wrong_ledger(system: System) -> list[str]:
    orders, inventory = await system.connect("order"), await system.connect("inventory")
    try:
        ordered = {row["product_id"]: row["quantity"] for row in await orders.fetch(_ORDERED)}
        deducted = {row["product_id"]: row["quantity"] for row in await inventory.fetch(_DEDUCTED)}
        wrong_stock = await inventory.fetchval(_WRONG_STOCK)
    finally:
        await orders.close()
        await inventory.close()
    differ = sum(
        ordered.get(product, 0) != deducted.get(product, 0)
        for product in ordered.keys() | deducted.keys()
    )
    found = [f"of {differ} products not just what was ordered was taken"] * bool(differ)
    return found + [f"the stock of {wrong_stock} products is not its ledger's"] * bool(wrong_stock)


async def _waiting_messages(system: System) -> list[str]:
    connection = await aio_pika.connect(system.environment["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel()
        found = []
        for name in (DEAD_LETTER_QUEUE, INVENTORY_QUEUE):
            queue = await channel.declare_queue(name, passive=True)
            waiting = queue.declaration_result.message_count
            found += [f"{waiting} messages lie in {name}"] * bool(waiting)
    return found
