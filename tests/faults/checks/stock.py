"""Stock: never negative, equal to its ledger, and moved once per order."""

from tests.faults.checks.violations import MOVED_TWICE, UNBALANCED, Violations
from tests.faults.shop.shop import Shop
from tests.support.postgres import Rows

_NEGATIVE = "SELECT id, stock FROM products WHERE stock < 0"
_ACCOUNTS = """
SELECT products.id, stock,
    coalesce(sum(delta) FILTER (WHERE kind = 'INITIAL'), 0) AS initial,
    coalesce(sum(delta) FILTER (WHERE kind = 'ADJUSTMENT'), 0) AS adjusted,
    coalesce(-sum(delta) FILTER (WHERE kind = 'DEDUCT'), 0) AS deducted,
    coalesce(sum(delta) FILTER (WHERE kind = 'RESTORE'), 0) AS restored
FROM products LEFT JOIN stock_movements ON product_id = products.id GROUP BY products.id
"""
_DEDUCTED = """
SELECT order_id::text, product_id, -sum(delta) AS quantity FROM stock_movements
WHERE order_id IS NOT NULL GROUP BY order_id, product_id HAVING sum(delta) <> 0
"""
_SOLD = """
SELECT order_id::text, product_id, sum(quantity) AS quantity
FROM order_items JOIN orders ON orders.id = order_id
WHERE status = 'CONFIRMED' GROUP BY order_id, product_id
"""
_APPLIED_TWICE = """
SELECT order_id::text, product_id, kind, count(*) FROM stock_movements WHERE order_id IS NOT NULL
GROUP BY order_id, product_id, kind HAVING count(*) > 1
"""
_UNIQUE_INDEX = """
SELECT count(*) FROM pg_index
WHERE indrelid = 'stock_movements'::regclass AND indisunique AND indisvalid
    AND (SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute
         WHERE attrelid = indrelid AND attnum = ANY(indkey))
        = ARRAY['kind', 'order_id', 'product_id']
"""


async def negative(shop: Shop) -> Violations:
    """Products with less than no stock."""
    rows = await shop.inventory.rows(_NEGATIVE)
    return {"I1 stock is negative": [str(row) for row in rows]}


async def unbalanced(shop: Shop) -> Violations:
    """Products whose stock differs from the ledger, and orders that hold the wrong stock."""
    differences = [
        f"product {row['id']} by {difference}"
        for row in await shop.inventory.rows(_ACCOUNTS)
        if (
            difference := row["stock"]
            + row["deducted"]
            - row["restored"]
            - row["initial"]
            - row["adjusted"]
        )
    ]
    deducted = _quantities(await shop.inventory.rows(_DEDUCTED))
    sold = _quantities(await shop.orders.rows(_SOLD))
    return {
        UNBALANCED: differences,
        "I3 stock is deducted without a confirmed order": _sorted(deducted - sold),
        "I3 stock of a confirmed order is not deducted": _sorted(sold - deducted),
    }


async def applied_twice(shop: Shop) -> Violations:
    """Orders that moved stock twice; the unique index of the ledger must prevent it."""
    rows = await shop.inventory.rows(_APPLIED_TWICE)
    indexes = await shop.inventory.value(_UNIQUE_INDEX)
    return {
        MOVED_TWICE: [str(row) for row in rows],
        "I5 the ledger has no unique index on order, product and kind": (
            [] if indexes else ["stock_movements"]
        ),
    }


def _quantities(rows: Rows) -> set[tuple[str, int, int]]:
    return {(row["order_id"], row["product_id"], int(row["quantity"])) for row in rows}


def _sorted(quantities: set[tuple[str, int, int]]) -> list[str]:
    return [str(each) for each in sorted(quantities)]
