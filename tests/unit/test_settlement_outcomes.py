"""What inventory did about an event decides how its order is settled."""

import pytest

from consumer_service.models import Kind, StockAnswer, StockOutcome, Verdict


@pytest.mark.parametrize(
    ("kind", "outcome", "verdict"),
    [
        (Kind.DEDUCT, StockOutcome.APPLIED, Verdict.CONFIRMED),
        (Kind.DEDUCT, StockOutcome.INSUFFICIENT_STOCK, Verdict.REJECTED),
        (Kind.DEDUCT, StockOutcome.CANCELLED, None),
        (Kind.DEDUCT, StockOutcome.UNKNOWN_PRODUCT, None),
        (Kind.RESTORE, StockOutcome.APPLIED, Verdict.RELEASED),
        (Kind.RESTORE, StockOutcome.CANCELLED, Verdict.RELEASED),
        (Kind.RESTORE, StockOutcome.UNKNOWN_PRODUCT, None),
    ],
)
def test_the_outcome_of_a_stock_update_decides_how_the_order_is_settled(
    kind: Kind, outcome: StockOutcome, verdict: Verdict | None
) -> None:
    assert StockAnswer(outcome).verdict(kind) is verdict
