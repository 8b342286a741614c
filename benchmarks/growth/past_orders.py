"""Orders that were placed and settled long ago, written straight into the databases.

The rows are those that the services would leave: items, status history, reservations, ledger.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.progress import Update
from benchmarks.system.launch import System
from benchmarks.system.shop import Shop

BATCH_SIZE = 100_000
_AGE = timedelta(days=30)
_INTERVAL_MS = 2
"""Between two orders: a million of them take half an hour of the past."""

# Ascending UUIDv7, the same in both databases: milliseconds, version, variant, number.
_PAST = """
past AS (
    SELECT n, to_timestamp(($3::bigint + n * $4::bigint) / 1000.0) AS at,
        CAST(lpad(to_hex($3::bigint + n * $4::bigint), 12, '0') || '70008'
            || lpad(to_hex(n), 15, '0') AS uuid) AS id
    FROM generate_series($1::bigint, $2::bigint) AS n
), items AS (
    -- Every tenth order begins with the best seller, product 1; the rest is spread evenly.
    SELECT past.*, k, CASE WHEN k = 0 AND n % 10 = 0 THEN 1
        ELSE 2 + (n * 7 + k * 13) % ($5::bigint - 1) END AS product_id
    FROM past, generate_series(0, n % 5) AS k
)
"""
_ORDERS = f"""
WITH {_PAST}, stored AS (
    INSERT INTO orders (id, user_id, status, total_cents, created_at, updated_at)
    SELECT id, ($6::bigint[])[1 + n % cardinality($6::bigint[])], 'CONFIRMED',
        500 * (1 + n % 5), at, at + interval '30 ms'
    FROM past
), changes AS (
    INSERT INTO order_status_history (order_id, status, changed_at)
    SELECT id, 'PENDING', at FROM past
    UNION ALL SELECT id, 'CONFIRMED', at + interval '30 ms' FROM past
)
INSERT INTO order_items (order_id, position, product_id, name, quantity, unit_price_cents)
SELECT id, k, product_id, 'Product ' || product_id, 1, 500 FROM items
"""
_STOCK = f"""
WITH {_PAST}, reserved AS (
    INSERT INTO reservations (order_id, state, created_at)
    SELECT id, 'DEDUCTED', at FROM past
), moved AS (
    INSERT INTO stock_movements (product_id, kind, delta, order_id, created_at)
    SELECT product_id, 'DEDUCT', -1, id, at FROM items
    RETURNING product_id
)
UPDATE products SET stock = stock - deducted.quantity
FROM (SELECT product_id, count(*) AS quantity FROM moved GROUP BY product_id) AS deducted
WHERE products.id = deducted.product_id
"""


def write(shop: Shop, first: int, last: int, update: Update) -> None:
    """Write the orders number `first` to `last`, as if vacuumed since; `update` reports progress.

    Numbers ascend from call to call, and each is used once.
    """
    asyncio.run(_write_both(shop, first, last, update))
    shop.past_orders = last


async def _write_both(shop: Shop, first: int, last: int, update: Update) -> None:
    start = int((datetime.now(UTC) - _AGE).timestamp() * 1000)
    spans = [(n, min(n + BATCH_SIZE - 1, last)) for n in range(first, last + 1, BATCH_SIZE)]
    parameters = [(*span, start, _INTERVAL_MS, shop.products) for span in spans]
    with_users = [(*each, list(shop.customers)) for each in parameters]

    def report(done: int) -> None:
        update(f"writing past orders: {spans[done][1]:,} of {last:,}")

    # In parallel: each database keeps one core busy.
    await asyncio.gather(
        _write(shop.system, "order", _ORDERS, with_users, lambda _: None),
        _write(shop.system, "inventory", _STOCK, parameters, report),
    )
    await shop.system.execute_as_admin("CHECKPOINT")


async def _write(
    system: System,
    database: str,
    statement: str,
    parameters: Sequence[tuple[object, ...]],
    report: Callable[[int], None],
) -> None:
    async with system.connect(database) as connection:
        for number, each in enumerate(parameters):
            await connection.execute(statement, *each)
            report(number)
        await connection.execute("VACUUM ANALYZE")
