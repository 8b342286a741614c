"""Whether every order is settled and stock and ledger are exact: otherwise a run is void.

The statements are independent of the services' own consistency checks.
"""

import asyncio
import time
from collections.abc import Callable

import aio_pika
from uuid_utils.compat import uuid7

from benchmarks.load.loops import LoadResult
from benchmarks.system.launch import System
from benchmarks.system.shop import Shop
from proto.events import DEAD_LETTER_QUEUE, INVENTORY_QUEUE

SETTLE_SECONDS = 180.0

# These use indexes and stop at the first row: polling must not disturb what is measured.
_UNSETTLED = """
SELECT EXISTS (SELECT FROM orders WHERE status = 'PENDING')
    OR EXISTS (SELECT FROM outbox WHERE sent_at IS NULL)
"""
_NEWEST = "SELECT id FROM orders ORDER BY id DESC LIMIT 1"
_STORED = "SELECT count(*) FROM orders WHERE id >= $1"
_STATUSES = "SELECT status, count(*) FROM orders GROUP BY status"
_ORDERED = """
SELECT product_id, sum(quantity)::bigint FROM order_items
JOIN orders ON orders.id = order_items.order_id AND orders.status = 'CONFIRMED'
GROUP BY product_id
"""
_DEDUCTED = """
SELECT product_id, -sum(delta)::bigint FROM stock_movements
WHERE kind IN ('DEDUCT', 'RESTORE') GROUP BY product_id
"""
_WRONG_STOCK = """
SELECT count(*) FROM products
LEFT JOIN (
    SELECT product_id, sum(delta) AS total FROM stock_movements GROUP BY product_id
) AS ledger ON ledger.product_id = products.id
WHERE products.stock < 0 OR products.stock <> coalesce(ledger.total, 0)
"""


def send_orders(shop: Shop, send: Callable[[], LoadResult]) -> LoadResult:
    """Send orders with `send`, wait until all are settled, and count them."""
    since = uuid7()
    result = send()
    wait_until_settled(shop)
    stored = shop.system.fetch_value("order", _STORED, since)
    shop.count_orders(accepted=result.succeeded, unconfirmed=result.unconfirmed, stored=stored)
    return result


def wait_until_settled(shop: Shop) -> None:
    """Return once no order is PENDING or new and no event is unsent; a failure after 3 minutes."""
    asyncio.run(_wait_until_settled(shop))


async def _wait_until_settled(shop: Shop) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    newest = None
    async with shop.system.connect("order") as connection:
        while True:
            # Requests that were in flight when the load ended may be stored only now.
            previous, newest = newest, await connection.fetchval(_NEWEST)
            if newest == previous and not await connection.fetchval(_UNSETTLED):
                return
            if time.monotonic() > deadline:
                shop.failures.append(
                    f"orders or events were not settled within {SETTLE_SECONDS:.0f} s"
                )
                return
            await asyncio.sleep(0.1)


def find_failures(shop: Shop) -> list[str]:
    """What went wrong, and what is wrong at rest with orders, stock, ledger and queues."""

    async def find() -> list[str]:
        return [
            *await _wrong_orders(shop),
            *await _wrong_stock(shop.system),
            *await _queued_messages(shop.system),
        ]

    wait_until_settled(shop)
    found = asyncio.run(find())
    return shop.failures + found


async def _wrong_orders(shop: Shop) -> list[str]:
    async with shop.system.connect("order") as connection:
        by_status = dict(await connection.fetch(_STATUSES))
    stored = sum(by_status.values()) - shop.past_orders
    found = [f"{n} orders are {status}" for status, n in by_status.items() if status != "CONFIRMED"]
    if not shop.accepted <= stored <= shop.accepted + shop.unconfirmed:
        found.append(
            f"{stored} orders are stored in total; {shop.accepted} were accepted,"
            f" {shop.unconfirmed} had no successful response"
        )
    return found


async def _wrong_stock(system: System) -> list[str]:
    async with system.connect("order") as orders, system.connect("inventory") as inventory:
        ordered = dict(await orders.fetch(_ORDERED))
        deducted = dict(await inventory.fetch(_DEDUCTED))
        wrong_stock = await inventory.fetchval(_WRONG_STOCK)
    different = sum(
        ordered.get(product, 0) != deducted.get(product, 0)
        for product in ordered.keys() | deducted.keys()
    )
    found = [f"{different} products: deducted is not what was ordered"] * bool(different)
    return found + [f"{wrong_stock} products: stock is not the ledger's sum"] * bool(wrong_stock)


async def _queued_messages(system: System) -> list[str]:
    connection = await aio_pika.connect(system.environment["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel()
        found = []
        for name in (DEAD_LETTER_QUEUE, INVENTORY_QUEUE):
            queue = await channel.declare_queue(name, passive=True)
            queued = queue.declaration_result.message_count
            found += [f"{queued} messages are in {name}"] * bool(queued)
    return found
