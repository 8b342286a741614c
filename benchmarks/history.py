"""A past for a shop: orders that were placed and settled long ago, straight into the databases.

The rows are those that the services would have left, with items, history, reservations and ledger.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from benchmarks.shop import Shop

AT_ONCE = 25_000
_PAST = timedelta(days=30)

# UUIDv7 that count up, the same in both databases: milliseconds, version, variant, number.
_PASSED = """
passed AS (
    SELECT n, to_timestamp(($3::bigint + n * $4::bigint) / 1000.0) AS at,
        CAST(lpad(to_hex($3::bigint + n * $4::bigint), 12, '0') || '70008'
            || lpad(to_hex(n), 15, '0') AS uuid) AS id
    FROM generate_series($1::bigint, $2::bigint) AS n
), items AS (
    SELECT passed.*, k, 1 + (n * 7 + k * 13) % $5::bigint AS product_id
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
    orders, inventory = await shop.system.connect("order"), await shop.system.connect("inventory")
    began = int((datetime.now(UTC) - _PAST).timestamp() * 1000)
    users = list(shop.customers)
    try:
        for start in range(first, last + 1, AT_ONCE):
            end = min(start + AT_ONCE - 1, last)
            # Two a second, so that a million of them end before now.
            common = (start, end, began, 2, shop.products)
            await orders.execute(_ORDERS, *common, users)
            await inventory.execute(_STOCK, *common)
            tell(end)
        for connection in (orders, inventory):
            await connection.execute("VACUUM ANALYZE")
        await shop.system.administer("CHECKPOINT")
    finally:
        await orders.close()
        await inventory.close()
