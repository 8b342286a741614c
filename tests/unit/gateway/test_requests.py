"""What the API accepts, and how it locates what it refuses."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from api_gateway.endpoints import validate
from api_gateway.handlers.orders import preferred_wait
from api_gateway.problems import Problem
from api_gateway.schemas import requests


def pointers(model: Any, data: object) -> list[str]:
    with pytest.raises(Problem) as raised:
        validate(model, data, "invalid_body")
    assert raised.value.status == 422
    return [error["pointer"] for error in raised.value.errors]


def item(**changes: object) -> dict[str, object]:
    return {"product_id": 1, "quantity": 1, **changes}


def test_a_valid_order_is_accepted_and_unknown_fields_are_ignored() -> None:
    order = validate(
        requests.NewOrder,
        {"items": [item(unit_price="19.99", unknown=1), item(unit_price=20)], "note": "ignored"},
        "invalid_body",
    )
    assert isinstance(order, requests.NewOrder)
    assert [one.unit_price for one in order.items] == [1_999, 2_000]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], [""]),
        ({}, ["/items"]),
        ({"items": []}, ["/items"]),
        ({"items": [item()] * 101}, ["/items"]),
        ({"items": [item(), {"product_id": 0}]}, ["/items/1/product_id", "/items/1/quantity"]),
        ({"items": [item(unit_price="1.999")]}, ["/items/0/unit_price"]),
        *(
            ({"items": [item(quantity=wrong)]}, ["/items/0/quantity"])
            for wrong in (0, -1, 1_000_001, 1.0, True, "1", None, 1e20)
        ),
        *(
            ({"items": [item(product_id=wrong)]}, ["/items/0/product_id"])
            for wrong in (0, 2**63, 1.5, "1")
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_error_of_an_invalid_order_is_located(data: object, expected: list[str]) -> None:
    assert pointers(requests.NewOrder, data) == expected


def test_each_field_of_a_product_has_limits() -> None:
    product = {"name": "Laptop", "price": "500.00", "stock": 10}
    assert validate(requests.NewProduct, product, "invalid_body")
    for field, wrong in [
        ("name", ""),
        ("name", " \t"),
        ("name", "x" * 201),
        ("name", "nul\0"),
        ("price", "10000000000.01"),
        ("price", -1),
        ("stock", -1),
        ("stock", 10**12 + 1),
        ("id", 2**53),
        ("description", "x" * 5001),
        ("description", "\0"),
    ]:
        assert pointers(requests.NewProduct, {**product, field: wrong}) == [f"/{field}"]


@pytest.mark.parametrize(
    ("model", "data", "details"),
    [
        (requests.NewProduct, [], ["must be a JSON object"]),
        (requests.RefreshToken, {}, ["is required"]),
        (requests.RefreshToken, {"refresh_token": ""}, ["must have at least 1 character"]),
        (requests.RefreshToken, {"refresh_token": 7}, ["must be a valid string"]),
        (requests.RefreshToken, {"refresh_token": "\0"}, ["has an invalid format"]),
        (requests.StockAdjustment, {"delta": 0, "reason": "x"}, ["must not be 0"]),
        (requests.NewOrder, {"items": []}, ["must have at least 1 item after validation, not 0"]),
    ],
)
def test_a_field_error_completes_a_sentence_about_its_field(
    model: type[BaseModel], data: object, details: list[str]
) -> None:
    with pytest.raises(Problem) as problem:
        validate(model, data, "invalid_body")
    assert [error["detail"] for error in problem.value.errors] == details


def test_a_product_update_changes_at_least_one_field() -> None:
    assert pointers(requests.ProductChanges, {}) == [""]
    assert pointers(requests.ProductChanges, {"stock": 5}) == [""]
    assert pointers(requests.ProductChanges, {"name": None}) == ["/name"]
    changes = validate(requests.ProductChanges, {"price": "1.00"}, "invalid_body")
    assert changes.model_fields_set == {"price"}


def test_a_stock_adjustment_has_a_nonzero_whole_delta() -> None:
    for delta in (0, 10**12 + 1, 1.5):
        assert pointers(requests.StockAdjustment, {"delta": delta, "reason": "x"}) == ["/delta"]


@pytest.mark.parametrize("email", ["a@b", " Ada@Example.COM ", "ü@bücher.example"])
def test_an_e_mail_has_a_local_part_and_a_domain(email: str) -> None:
    data = {"email": email, "password": "x" * 10, "name": "Ada"}
    assert validate(requests.Registration, data, "invalid_body")


@pytest.mark.parametrize("email", ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b..c", "a\0@b", 7])
def test_an_invalid_e_mail_is_refused(email: object) -> None:
    data = {"email": email, "password": "x" * 10, "name": "Ada"}
    assert pointers(requests.Registration, data) == ["/email"]


def test_an_empty_parameter_counts_as_absent() -> None:
    for model in (requests.PageQuery, requests.ProductQuery, requests.OrderQuery):
        empty = dict.fromkeys(model.model_fields, "")
        assert model.model_validate(empty) == model()


@pytest.mark.parametrize("size", ["0", "101", "-1", "1.0", " 1", "+1", "1_0", "x"])
def test_a_page_size_is_1_to_100(size: str) -> None:
    assert pointers(requests.PageQuery, {"page_size": size}) == ["/page_size"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_input_is_refused_with_a_422_at_worst(data: object) -> None:
    for model in (
        requests.NewOrder,
        requests.NewProduct,
        requests.LegacyOrder,
        requests.Registration,
    ):
        assert all(pointer.startswith(("/", "")) for pointer in pointers(model, data))


def test_lone_surrogates_are_not_json() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(b'"\\ud800"')


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["wait=5"], 5),
        (["respond-async, WAIT = 7"], 7),
        (["return=minimal; foo", 'wait="3"'], 3),
        (["wait=99999"], 30),
        (["wait=0"], 0),
        (["wait=-1"], 0),
        (["wait=x"], 0),
        (["await=5"], 0),
        ([], 0),
    ],
)
def test_prefer_wait_is_read_and_capped(values: list[str], seconds: int) -> None:
    assert preferred_wait(values) == seconds
