"""The totals of the whole fault matrix; these tests run after all others."""

import pytest

from tests.faults.checks import totals

pytestmark = pytest.mark.whole_matrix


def test_ten_thousand_orders_under_faults_caused_no_false_alarm() -> None:
    assert totals.COUNTS["orders accepted"] >= 10_000
    assert totals.COUNTS["false alarms"] == 0


def test_no_order_was_lost_or_duplicated() -> None:
    assert (totals.COUNTS["lost"], totals.COUNTS["duplicated"]) == (0, 0)
