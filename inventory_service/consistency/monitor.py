"""Compares stock with the ledger all the time, at a cost that does not grow with the ledger."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, BigInteger, bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service.consistency.checks import STOCK_EQUALS_LEDGER
from service_kit.consistency import Check, Finding, FindViolations
from service_kit.postgres.engine import autocommit

SLICE_SIZE = 10_000
"""Products that one run compares: up to this many are all compared in each run."""
MAX_SUSPECTS = 100

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
        coalesce(sum(delta), 0) AS balance
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


class StockMonitor:
    """Compares stock with the ledger, a slice of the products in each run.

    A product's ledger is summed up from where its stored balance ends. This is exact because
    every movement locks the product's row first: a product's movements get their ids in the order
    of their commits. Stock and ledger are read by one statement, hence as of one moment.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._after = 0
        self._found: list[int] = []

    def checks(self) -> Mapping[Check, FindViolations]:
        """What to run, again and again."""
        return {STOCK_EQUALS_LEDGER: self.find_wrong_stock}

    async def find_wrong_stock(self) -> Sequence[Finding]:
        """Products whose stock differs from the ledger, a hundred at most.

        Compares the next slice, and again what the last run found.
        """
        async with autocommit(self._engine) as connection:
            parameters = {
                "after": self._after,
                "found": self._found,
                "slice_size": SLICE_SIZE,
                "max_suspects": MAX_SUSPECTS,
            }
            compared = (await connection.execute(_COMPARE, parameters)).one()
            wrong = []
            if compared.suspects:
                suspects = {"suspects": compared.suspects}
                wrong = list(await connection.execute(_VERIFY, suspects))
        self._after, self._found = compared.last_id or 0, [row.id for row in wrong]
        return [
            Finding(f"product {row.id}", f"stock {row.stock}, ledger {row.balance}")
            for row in wrong
        ]
