"""What products, adjustments and quantities inventory takes, and how it refuses the others."""

import pytest

from inventory_service.domain import (
    adjusted_stock,
    check_adjustment,
    check_changes,
    check_product,
    sum_quantities,
)
from service_kit.errors import FailedPrecondition, InvalidArgument


def test_quantities_of_a_repeated_product_are_summed() -> None:
    assert sum_quantities([(1, 2), (2, 1), (1, 3)]) == {1: 5, 2: 1}


@pytest.mark.parametrize("quantity", [0, -1, 1_000_001])
def test_a_quantity_that_no_order_has_is_refused(quantity: int) -> None:
    with pytest.raises(InvalidArgument, match=r"^Quantity must be 1 to 1,000,000\.$"):
        sum_quantities([(1, 5), (1, quantity)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " "}, "Name must have 1 to 200 characters."),
        ({"description": "d" * 5001}, "Description must have at most 5,000 characters."),
        ({"price_cents": -1}, "Price must be 0 to 1,000,000,000,000 cents."),
        ({"stock": -1}, "Stock must be 0 to 1,000,000,000,000."),
        ({"id": 0}, "Id must be 1 to 9,007,199,254,740,991."),
    ],
)
def test_a_refusal_names_the_field_and_its_rule(fields: dict[str, str | int], message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_product(fields)
    assert refusal.value.message == message
    assert refusal.value.metadata == {"field": next(iter(fields))}


@pytest.mark.parametrize("fields", [{}, {"stock": 1}, {"name": "Tea", "colour": "green"}])
def test_only_name_description_and_price_can_be_changed(fields: dict[str, str | int]) -> None:
    with pytest.raises(InvalidArgument, match="name, description or price_cents"):
        check_changes(fields)


@pytest.mark.parametrize(
    ("delta", "reason", "message"),
    [
        (0, "counted", "Delta must not be 0."),
        (10**12 + 1, "counted", "Delta must be -1,000,000,000,000 to 1,000,000,000,000."),
        (1, "", "Reason must have 1 to 500 characters."),
    ],
)
def test_an_adjustment_that_breaks_a_rule_is_refused(delta: int, reason: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_adjustment(delta, reason)
    assert refusal.value.message == message


def test_an_adjustment_takes_at_most_what_is_in_stock() -> None:
    assert adjusted_stock(7, 3, -3) == 0
    for stock, message in (
        (3, "Only 3 of product 7 are in stock."),
        (1, "Only 1 of product 7 is in stock."),
    ):
        with pytest.raises(FailedPrecondition) as refusal:
            adjusted_stock(7, stock, -4)
        assert refusal.value.message == message
