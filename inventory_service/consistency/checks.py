"""The full checks: what must hold in inventory's data.

`monitor` has the continuous check, which runs with the service.
"""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service.consistency import repository
from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import snapshot

STOCK_NOT_NEGATIVE = Check("I1", "stock_not_negative", "stock is never negative")
STOCK_EQUALS_LEDGER = Check("I3", "stock_equals_ledger", "stock equals the sum of its ledger")
RESERVATION_EQUALS_LEDGER = Check(
    "I3", "reservation_equals_ledger", "orders moved what was decided for them"
)

_VIOLATIONS = {
    STOCK_NOT_NEGATIVE: repository.NEGATIVE_STOCK,
    STOCK_EQUALS_LEDGER: repository.STOCK_MISMATCHES,
    RESERVATION_EQUALS_LEDGER: repository.RESERVATION_MISMATCHES,
}

CHECKS = tuple(_VIOLATIONS)


async def run_checks(engine: AsyncEngine) -> AsyncIterator[tuple[Check, list[Finding]]]:
    """Each of CHECKS with its violations, 10,000 at most, all as of one moment."""
    async with snapshot(engine) as connection:
        for check, statement in _VIOLATIONS.items():
            yield check, await repository.find_violations(connection, statement)
