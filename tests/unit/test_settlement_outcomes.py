"""What inventory did about an event decides how its order is settled."""

import uuid

import pytest

from consumer_service.domain import (
    OrderEvent,
    SettlementOutcome,
    StockUpdateKind,
    StockUpdateOutcome,
    StockUpdateResult,
    settle,
)

DEDUCT, RESTORE = StockUpdateKind.DEDUCT, StockUpdateKind.RESTORE


@pytest.mark.parametrize(
    ("kind", "stock", "expected"),
    [
        (DEDUCT, StockUpdateOutcome.APPLIED, SettlementOutcome.CONFIRMED),
        (DEDUCT, StockUpdateOutcome.INSUFFICIENT_STOCK, SettlementOutcome.REJECTED),
        (DEDUCT, StockUpdateOutcome.CANCELLED, None),
        (DEDUCT, StockUpdateOutcome.UNKNOWN_PRODUCT, None),
        (RESTORE, StockUpdateOutcome.APPLIED, SettlementOutcome.RELEASED),
        (RESTORE, StockUpdateOutcome.CANCELLED, SettlementOutcome.RELEASED),
        (RESTORE, StockUpdateOutcome.UNKNOWN_PRODUCT, None),
    ],
)
def test_the_outcome_of_a_stock_update_decides_how_the_order_is_settled(
    kind: StockUpdateKind, stock: StockUpdateOutcome, expected: SettlementOutcome | None
) -> None:
    settlement = settle(OrderEvent(uuid.uuid4(), kind, {1: 1}), StockUpdateResult(stock))
    assert (settlement and settlement.outcome) == expected
