"""Money: exact cents inside, a decimal string outside."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.schemas.money import (
    MAX_PRICE_CENTS,
    MAX_TOTAL_CENTS,
    format_cents,
    parse_cents,
)

CENTS = st.integers(0, MAX_TOTAL_CENTS)


@given(CENTS)
def test_what_is_written_is_read_back(cents: int) -> None:
    assert parse_cents(format_cents(cents)) == cents


@given(CENTS)
def test_a_number_with_two_decimals_is_read_to_the_cent(cents: int) -> None:
    assert parse_cents(float(format_cents(cents))) == cents


@given(st.integers(0, MAX_PRICE_CENTS))
def test_a_decimal_is_read_to_the_cent(cents: int) -> None:
    assert parse_cents(Decimal(cents) / 100) == cents


@given(st.integers(0, MAX_PRICE_CENTS), st.integers(1, 9))
def test_a_third_decimal_is_refused(cents: int, third: int) -> None:
    with pytest.raises(ValueError, match="at most two decimals"):
        parse_cents(f"{format_cents(cents)}{third}")


@pytest.mark.parametrize(
    ("value", "cents"),
    [
        ("500.00", 50_000),
        ("500.5", 50_050),
        ("0", 0),
        ("007.10", 710),
        (500, 50_000),
        (19.99, 1_999),
        (0.1, 10),
        (1e2, 10_000),
        (-0.0, 0),
    ],
)
def test_strings_and_numbers_are_amounts(value: object, cents: int) -> None:
    assert parse_cents(value) == cents


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " 1",
            "1 ",
            "1\n",
            "+1",
            "-1",
            "-0.01",
            "1.",
            ".5",
            "1e2",
            "1,5",
            "0x1",
            "NaN",
            "\u0661",
        ),
        *("1.234", "1_000", "9" * 15),
        *(-1, -0.01, 0.1 + 0.2, 1e-7, 1e300, float("nan"), float("inf"), 10**20),
        *(True, None, [], {}, Decimal("1E+2"), Decimal(-1)),
    ],
)
def test_a_value_that_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_cents(value)
