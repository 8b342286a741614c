"""What the whole matrix adds up to, once all its other rows have run."""

import pytest

from tests.faults import tally

pytestmark = pytest.mark.whole_matrix


def test_ten_thousand_orders_under_faults_gave_no_false_alarm() -> None:
    assert tally.TOTAL["orders accepted"] >= 10_000
    assert tally.TOTAL["audit alarms"] == 0


def test_no_order_was_lost_or_doubled() -> None:
    assert (tally.TOTAL["lost"], tally.TOTAL["doubled"]) == (0, 0)
