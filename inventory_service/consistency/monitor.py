"""Compares stock with the ledger continuously, at a cost that does not grow with the ledger."""

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service.consistency import repository
from inventory_service.consistency.checks import STOCK_EQUALS_LEDGER
from service_kit.consistency import Check, Finding, FindViolations
from service_kit.postgres.engine import autocommit

SLICE_SIZE = 10_000
"""Products that one run compares: up to this many are all compared in each run."""
MAX_SUSPECTS = 100


class ContinuousChecks:
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
        """The checks, for a ConsistencyMonitor."""
        return {STOCK_EQUALS_LEDGER: self.find_wrong_stock}

    async def find_wrong_stock(self) -> Sequence[Finding]:
        """Products whose stock differs from the ledger, a hundred at most.

        Compares the next slice, and again what the last run found.
        """
        async with autocommit(self._engine) as connection:
            compared = await repository.compare_slice(
                connection,
                self._after,
                self._found,
                slice_size=SLICE_SIZE,
                max_suspects=MAX_SUSPECTS,
            )
            wrong = []
            if compared.suspects:
                wrong = await repository.verify(connection, compared.suspects)
        self._after, self._found = compared.last_id or 0, [each.product_id for each in wrong]
        return [
            Finding(f"product {each.product_id}", f"stock {each.stock}, ledger {each.balance}")
            for each in wrong
        ]
