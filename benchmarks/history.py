"""A past for a shop: orders that were placed and settled long ago, straight into the databases.

The rows are those that the services would have left, with items, history, reservations and ledger.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.shop import Shop
from benchmarks.system import System

AT_ONCE = 100_000
_PAST = timedelta(days=30)

# UUIDv7 that count up, the same in both databases: milliseconds, version, variant, number.
_PASSED = """
passed AS (
    SELECT n, to_timestamp(($3::bigint + n * $4::bigint) / 1000.0) AS at,
        CAST(lpad(to_hex($3::bigint + n * $4::bigint), 12, '0') || '70008'
            || lpad(to_hex(n), 15, '0') AS uuid) AS id
    FROM generate_series($1::bigint, $2::bigint) AS n
), items AS (
    -- Every tenth order begins with the best seller, product 1; the rest is spread evenly.
    SELECT passed.*, k, CASE WHEN k = 0 AND n % 10 = 0 THEN 1
        ELSE 2 + (n * 7 + k * 13) % ($5::bigint - 1) END AS product_id
    FROM passed, generate_series(0, n % 5) AS k
)
"""
_ORDERS = f"""
WITH {_PASSED}, stored AS (
    INSERT INTO orders (id, user_id, status, total_cents, created_at, updated_at)
    SELECT id, ($6::bigint[])[1 + n % cardinality($6::bigint[])], 'CONFIRMED',
        500 * (1 + n % 5), at, at + interval '30 ms'
    FROM passed
), changes AS (
    INSERT INTO order_status_history (order_id, status, changed_at)
    SELECT id, 'PENDING', at FROM passed
    UNION ALL SELECT id, 'CONFIRMED', at + interval '30 ms' FROM passed
)
INSERT INTO order_items (order_id, position, product_id, name, quantity, unit_price_cents)
SELECT id, k, product_id, 'Product ' || product_id, 1, 500 FROM items
"""
_STOCK = f"""
WITH {_PASSED}, decided AS (
    INSERT INTO reservations (order_id, state, created_at)
    SELECT id, 'DEDUCTED', at FROM passed
), moved AS (
    INSERT INTO stock_movements (product_id, kind, delta, order_id, created_at)
    SELECT product_id, 'DEDUCT', -1, id, at FROM items
    RETURNING product_id
)
UPDATE products SET stock = stock - taken.quantity
FROM (SELECT product_id, count(*) AS quantity FROM moved GROUP BY product_id) AS taken
WHERE products.id = taken.product_id
"""


async def write(shop: Shop, first: int, last: int, tell: Callable[[int], None]) -> None:
    """Write the orders number `first` to `last`; `tell` hears how far that is.

    Numbers are used once each, ascending. Afterwards the databases are as after a night's
    autovacuum.
    """
    began = int((datetime.now(UTC) - _PAST).timestamp() * 1000)
    spans = [(at, min(at + AT_ONCE - 1, last)) for at in range(first, last + 1, AT_ONCE)]
    # 2 ms apart: a million of them take half an hour of the past.
    parameters = [(*span, began, 2, shop.products) for span in spans]
    with_users = [(*each, list(shop.customers)) for each in parameters]
    # Each database keeps a core busy.
    await asyncio.gather(
        _write(shop.system, "order", _ORDERS, with_users, lambda _: None),
        _write(shop.system, "inventory", _STOCK, parameters, lambda n: tell(spans[n][1])),
    )
    await shop.system.administer("CHECKPOINT")


async def _write(
    system: System,
    database: str,
    statement: str,
    parameters: Sequence[tuple[object, ...]],
    tell: Callable[[int], None],
) -> None:
    connection = await system.connect(database)
    try:
        for number, each in enumerate(parameters):
            await connection.execute(statement, *each)
            tell(number)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
