"""What must hold in inventory's data, and the statements that find violations."""

from collections.abc import AsyncIterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import snapshot

STOCK_NOT_NEGATIVE = Check("I1", "stock_not_negative", "stock is never negative")
STOCK_EQUALS_LEDGER = Check("I3", "stock_equals_ledger", "stock equals the sum of its ledger")
RESERVATION_EQUALS_LEDGER = Check(
    "I3", "reservation_equals_ledger", "orders moved what was decided for them"
)

MAX_FINDINGS = 10_000
"""Of each check."""

# Each gives the subject and the detail of a violation.
_VIOLATIONS = {
    STOCK_NOT_NEGATIVE: """
SELECT 'product ' || id, 'stock ' || stock
FROM products WHERE stock < 0
ORDER BY id LIMIT :max_findings
""",
    # FULL JOIN: also finds the ledger of a product that was deleted.
    STOCK_EQUALS_LEDGER: """
WITH ledger AS (
    SELECT product_id, count(*) AS movements, sum(delta) AS total,
        coalesce(sum(delta) FILTER (WHERE kind = 'INITIAL'), 0) AS initial,
        coalesce(sum(delta) FILTER (WHERE kind = 'ADJUSTMENT'), 0) AS adjusted,
        coalesce(-sum(delta) FILTER (WHERE kind = 'DEDUCT'), 0) AS deducted,
        coalesce(sum(delta) FILTER (WHERE kind = 'RESTORE'), 0) AS restored
    FROM stock_movements GROUP BY product_id
)
SELECT 'product ' || coalesce(products.id, product_id), CASE
    WHEN products.id IS NULL THEN format('deleted, with %s movements left', movements)
    WHEN product_id IS NULL THEN format('stock %s, without movements', stock)
    ELSE format('stock %s, but initial %s + adjusted %s - deducted %s + restored %s = %s',
        stock, initial, adjusted, deducted, restored, total) END
FROM products FULL JOIN ledger ON product_id = products.id
WHERE stock IS DISTINCT FROM coalesce(total, 0)
ORDER BY coalesce(products.id, product_id) LIMIT :max_findings
""",
    # FULL JOIN: also finds movements of an order without a reservation.
    RESERVATION_EQUALS_LEDGER: """
WITH by_product AS (
    SELECT order_id,
        coalesce(-sum(delta) FILTER (WHERE kind = 'DEDUCT'), 0) AS deducted,
        coalesce(sum(delta) FILTER (WHERE kind = 'RESTORE'), 0) AS restored
    FROM stock_movements WHERE order_id IS NOT NULL GROUP BY order_id, product_id
), by_order AS (
    SELECT order_id AS moving_order_id, sum(deducted) AS deducted, sum(restored) AS restored,
        bool_and(deducted = restored) AS balanced
    FROM by_product GROUP BY order_id
)
SELECT 'order ' || coalesce(order_id, moving_order_id),
    format('%s, deducted %s, restored %s', coalesce(state, 'no reservation'),
        coalesce(deducted, 0), coalesce(restored, 0))
FROM reservations FULL JOIN by_order ON moving_order_id = order_id
WHERE NOT CASE state
    WHEN 'DEDUCTED' THEN coalesce(deducted > 0 AND restored = 0, false)
    WHEN 'RESTORED' THEN coalesce(balanced, false)
    WHEN 'REJECTED' THEN moving_order_id IS NULL
    WHEN 'CANCELLED' THEN moving_order_id IS NULL
    ELSE false END
ORDER BY coalesce(order_id, moving_order_id) LIMIT :max_findings
""",
}

CHECKS = tuple(_VIOLATIONS)


async def run_checks(engine: AsyncEngine) -> AsyncIterator[tuple[Check, list[Finding]]]:
    """Each of CHECKS with its violations, MAX_FINDINGS at most, all as of one moment."""
    async with snapshot(engine) as connection:
        for check, violations in _VIOLATIONS.items():
            rows = await connection.execute(text(violations), {"max_findings": MAX_FINDINGS})
            yield check, [Finding(subject, detail) for subject, detail in rows]
