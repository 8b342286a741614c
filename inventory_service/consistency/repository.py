"""SQL of the consistency checks.

Each statement that finds violations returns their subjects and details.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ARRAY, BigInteger, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service_kit.consistency import Finding

MAX_FINDINGS = 10_000
"""Of each full check."""

NEGATIVE_STOCK = text("""
SELECT 'product ' || id, 'stock ' || stock
FROM products WHERE stock < 0
ORDER BY id LIMIT :max_findings
""")

# FULL JOIN: also finds the ledger of a product that was deleted.
STOCK_MISMATCHES = text("""
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
""")

# FULL JOIN: also finds movements of an order without a reservation.
RESERVATION_MISMATCHES = text("""
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
""")

# The ledger is read only if stock differs from the stored balance: otherwise nothing moved since
# then, or what moved cancels out. That keeps products at rest cheap. A change by hand that gives
# stock its stored balance back shows with the next movement.
#
# The row comparison fits the index on (product_id, id) only. With `id > …` alone the planner may
# read the ledger by its primary key, from the last movement of a product that never sells.
_COMPARE = text("""
WITH slice AS MATERIALIZED (
    SELECT id, stock FROM products WHERE id > :after ORDER BY id LIMIT :slice_size
), examined AS MATERIALIZED (
    SELECT id, stock FROM slice
    UNION
    SELECT id, stock FROM products WHERE id = ANY(:found)
), compared AS MATERIALIZED (
    SELECT examined.id, stock, coalesce(new.movement_id, known.movement_id, 0) AS movement_id,
        coalesce(known.balance, 0) + delta AS balance
    FROM examined
    LEFT JOIN stock_balances AS known ON known.product_id = examined.id
    CROSS JOIN LATERAL (
        SELECT max(id) AS movement_id, coalesce(sum(delta), 0) AS delta
        FROM stock_movements
        WHERE product_id = examined.id
            AND (product_id, id) > (examined.id, coalesce(known.movement_id, 0))
    ) AS new
    WHERE stock IS DISTINCT FROM known.balance
), stored AS (
    INSERT INTO stock_balances (product_id, movement_id, balance)
    SELECT id, movement_id, balance FROM compared ORDER BY id
    ON CONFLICT (product_id) DO UPDATE
    SET movement_id = excluded.movement_id, balance = excluded.balance
)
SELECT
    -- Where the next run continues; NULL after the last product: from the beginning.
    (SELECT nullif(max(id), (SELECT max(id) FROM products)) FROM slice) AS last_id,
    ARRAY(
        SELECT id FROM compared WHERE stock <> balance
        ORDER BY id = ANY(:found) DESC, id LIMIT :max_suspects
    ) AS suspects
""").bindparams(bindparam("after", type_=BigInteger), bindparam("found", type_=ARRAY(BigInteger)))

# From the beginning of the ledger: a stored balance is wrong once a row before it was changed.
_VERIFY = text("""
WITH compared AS MATERIALIZED (
    SELECT products.id, stock, coalesce(max(stock_movements.id), 0) AS movement_id,
        CAST(coalesce(sum(delta), 0) AS bigint) AS balance
    FROM products LEFT JOIN stock_movements ON product_id = products.id
    WHERE products.id = ANY(:suspects) GROUP BY products.id
), stored AS (
    INSERT INTO stock_balances (product_id, movement_id, balance)
    SELECT id, movement_id, balance FROM compared ORDER BY id
    ON CONFLICT (product_id) DO UPDATE
    SET movement_id = excluded.movement_id, balance = excluded.balance
)
SELECT id, stock, balance FROM compared WHERE stock <> balance ORDER BY id
""").bindparams(bindparam("suspects", type_=ARRAY(BigInteger)))


class WrongStock(NamedTuple):
    """A product whose stock differs from the balance of its ledger."""

    product_id: int
    stock: int
    balance: int


class Comparison(NamedTuple):
    """Where the next comparison continues (None: from the beginning), and which products differ."""

    last_id: int | None
    suspects: Sequence[int]


async def find_violations(connection: AsyncConnection, statement: TextClause) -> list[Finding]:
    """What one of NEGATIVE_STOCK … RESERVATION_MISMATCHES finds, MAX_FINDINGS at most."""
    rows = await connection.execute(statement, {"max_findings": MAX_FINDINGS})
    return [Finding(subject, detail) for subject, detail in rows]


async def compare_slice(
    connection: AsyncConnection,
    after: int,
    found: Sequence[int],
    *,
    slice_size: int,
    max_suspects: int,
) -> Comparison:
    """Compare the next products above `after`, and those of `found`, with their stored balances.

    Stores the balances of those whose stock has changed.
    """
    parameters: dict[str, object] = {
        "after": after,
        "found": found,
        "slice_size": slice_size,
        "max_suspects": max_suspects,
    }
    row = (await connection.execute(_COMPARE, parameters)).one()
    return Comparison(row.last_id, row.suspects)


async def verify(connection: AsyncConnection, suspects: Sequence[int]) -> list[WrongStock]:
    """The products whose stock differs from their whole ledger, by id."""
    rows = await connection.execute(_VERIFY, {"suspects": suspects})
    return [WrongStock(*row) for row in rows]
