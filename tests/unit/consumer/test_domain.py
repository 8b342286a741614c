"""How an order is settled after its stock was updated."""

import uuid

import pytest

from consumer_service.domain import OrderEvent, StockUpdateResult, settlement_for
from proto.orders import SettlementOutcome
from proto.stock import Shortage, StockUpdateKind, StockUpdateOutcome
from service_kit.context import CallContext

CONTEXT = CallContext("request-1")
ORDER_ID = uuid.UUID("019abcde-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("kind", "outcome", "expected"),
    [
        (StockUpdateKind.DEDUCT, StockUpdateOutcome.APPLIED, SettlementOutcome.CONFIRMED),
        (
            StockUpdateKind.DEDUCT,
            StockUpdateOutcome.INSUFFICIENT_STOCK,
            SettlementOutcome.REJECTED,
        ),
        (StockUpdateKind.RESTORE, StockUpdateOutcome.APPLIED, SettlementOutcome.RELEASED),
        (StockUpdateKind.RESTORE, StockUpdateOutcome.CANCELLED, SettlementOutcome.RELEASED),
    ],
)
def test_the_outcome_of_the_stock_update_settles_the_order(
    kind: StockUpdateKind, outcome: StockUpdateOutcome, expected: SettlementOutcome
) -> None:
    event = OrderEvent(ORDER_ID, kind, {1: 2}, CONTEXT)
    shortages = [Shortage(1, 2, 0)]
    settlement = settlement_for(event, StockUpdateResult(outcome, shortages))
    assert settlement is not None
    assert settlement.outcome is expected
    assert settlement.order_id == ORDER_ID
    assert settlement.shortages == shortages
    assert settlement.context == CONTEXT


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (StockUpdateKind.DEDUCT, StockUpdateOutcome.CANCELLED),
        (StockUpdateKind.DEDUCT, StockUpdateOutcome.UNKNOWN_PRODUCT),
        (StockUpdateKind.RESTORE, StockUpdateOutcome.UNKNOWN_PRODUCT),
    ],
)
def test_after_a_cancellation_or_for_an_unknown_product_there_is_nothing_to_settle(
    kind: StockUpdateKind, outcome: StockUpdateOutcome
) -> None:
    event = OrderEvent(ORDER_ID, kind, {1: 2}, CONTEXT)
    assert settlement_for(event, StockUpdateResult(outcome)) is None
