"""What shall hold in inventory's data, and what breaks it.

This is about everything; `auditor` looks at what changed, all the time.
"""

from collections.abc import AsyncIterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import snapshot

NOT_NEGATIVE = Check("I1", "stock_not_negative", "stock is never negative")
EQUALS_LEDGER = Check("I3", "stock_equals_ledger", "stock is what the ledger adds up to")
HOLDS_ITS_OWN = Check("I3", "reservation_equals_ledger", "an order moved what was decided for it")
NOTHING_TWICE = Check("I5", "no_movement_twice", "no order moved a product twice the same way")

_AT_MOST = 10_000

_BREACHES = {
    NOT_NEGATIVE: "SELECT 'product ' || id, 'stock ' || stock FROM products WHERE stock < 0",
    EQUALS_LEDGER: """
SELECT 'product ' || coalesce(products.id, ledger.product_id),
    CASE WHEN products.id IS NULL THEN 'is gone, with ' || movements || ' movements left'
    ELSE format('stock %s, but initial %s + adjusted %s - deducted %s + restored %s = %s', stock,
        coalesce(initial, 0), coalesce(adjusted, 0), coalesce(deducted, 0), coalesce(restored, 0),
        coalesce(total, 0)) END
FROM products FULL JOIN (
    SELECT product_id, count(*) AS movements, sum(delta) AS total,
        sum(delta) FILTER (WHERE kind = 'INITIAL') AS initial,
        sum(delta) FILTER (WHERE kind = 'ADJUSTMENT') AS adjusted,
        -sum(delta) FILTER (WHERE kind = 'DEDUCT') AS deducted,
        sum(delta) FILTER (WHERE kind = 'RESTORE') AS restored
    FROM stock_movements GROUP BY product_id
) AS ledger ON ledger.product_id = products.id
WHERE stock IS DISTINCT FROM coalesce(total, 0)
ORDER BY coalesce(products.id, ledger.product_id)
""",
    HOLDS_ITS_OWN: """
SELECT 'order ' || coalesce(reservations.order_id, moved.order_id),
    format('%s, took %s, gave back %s', coalesce(state, 'not decided'), coalesce(took, 0),
        coalesce(gave, 0))
FROM reservations FULL JOIN (
    SELECT order_id, sum(took) AS took, sum(gave) AS gave, bool_or(took <> gave) AS uneven FROM (
        SELECT order_id, coalesce(-sum(delta) FILTER (WHERE kind = 'DEDUCT'), 0) AS took,
            coalesce(sum(delta) FILTER (WHERE kind = 'RESTORE'), 0) AS gave
        FROM stock_movements WHERE order_id IS NOT NULL GROUP BY order_id, product_id
    ) AS by_product GROUP BY order_id
) AS moved ON moved.order_id = reservations.order_id
WHERE NOT CASE state
    WHEN 'DEDUCTED' THEN coalesce(took > 0 AND gave = 0, false)
    WHEN 'RESTORED' THEN coalesce(NOT uneven, false)
    WHEN 'REJECTED' THEN moved.order_id IS NULL
    WHEN 'CANCELLED' THEN moved.order_id IS NULL
    ELSE false END
ORDER BY 1
""",
    NOTHING_TWICE: """
SELECT 'order ' || order_id, format('%s of product %s: %s times', kind, product_id, count(*))
FROM stock_movements WHERE order_id IS NOT NULL
GROUP BY order_id, kind, product_id HAVING count(*) > 1 ORDER BY 1
""",
}


RULES = tuple(_BREACHES)


async def run_audit(engine: AsyncEngine) -> AsyncIterator[tuple[Check, list[Finding]]]:
    """Each of RULES with what breaks it, all as of one moment."""
    async with snapshot(engine) as connection:
        for rule, breaches in _BREACHES.items():
            rows = await connection.execute(text(f"{breaches} LIMIT {_AT_MOST}"))
            yield rule, [Finding(subject, detail) for subject, detail in rows]
