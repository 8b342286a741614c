"""Bodies, parameters and page tokens that are invalid, too large or too slow."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import pytest

from tests.support.api_client import Json, problem
from tests.system.refusals.checker import (
    ACCOUNT,
    LEGACY_ORDER,
    MEBIBYTE,
    ORDER,
    PRODUCT,
    Refusal,
    RefusalChecker,
)


def _item(**changes: object) -> Json:
    return {"items": [{"product_id": 1, "quantity": 1, **changes}]}


NOT_JSON = [b"{", b"", b'{"items": [}', b"NaN", b"\xff\xfe", b"[" * 10_000]


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:9]))
@pytest.mark.parametrize("path", ["/v1/orders", "/v1/auth/login", "/create_order"])
async def test_a_body_that_is_not_json_is_a_bad_request(
    refusals: RefusalChecker, path: str, body: bytes
) -> None:
    await refusals.check(Refusal(f"POST {path}", body, 400, "invalid_json"))


INVALID_BODIES = [
    ("POST /v1/auth/register", [], ("",)),
    ("POST /v1/auth/register", {}, ("/email", "/password", "/name")),
    ("POST /v1/auth/register", {**ACCOUNT, "email": "nobody"}, ("/email",)),
    ("POST /v1/auth/register", {**ACCOUNT, "password": "too short"}, ("/password",)),
    ("POST /v1/auth/register", {**ACCOUNT, "name": " "}, ("/name",)),
    ("POST /register", {**ACCOUNT, "name": "a\x00b"}, ("/name",)),
    ("POST /v1/auth/login", {"email": "ada@example.com"}, ("/password",)),
    ("POST /login", {"email": 7, "password": None}, ("/email", "/password")),
    ("POST /v1/auth/refresh", {"refresh_token": ""}, ("/refresh_token",)),
    ("POST /v1/auth/logout", {}, ("/refresh_token",)),
    ("POST /v1/orders", {"items": []}, ("/items",)),
    ("POST /v1/orders", {"items": [{}]}, ("/items/0/product_id", "/items/0/quantity")),
    ("POST /v1/orders", {"items": ORDER["items"] * 101}, ("/items",)),
    ("POST /v1/orders", _item(quantity=0), ("/items/0/quantity",)),
    ("POST /v1/orders", _item(quantity=1_000_001), ("/items/0/quantity",)),
    ("POST /v1/orders", _item(quantity=1.5), ("/items/0/quantity",)),
    ("POST /v1/orders", _item(quantity=True), ("/items/0/quantity",)),
    ("POST /v1/orders", _item(product_id="1"), ("/items/0/product_id",)),
    ("POST /v1/orders", _item(product_id=2**63), ("/items/0/product_id",)),
    ("POST /v1/orders", _item(unit_price=-1), ("/items/0/unit_price",)),
    ("POST /v1/orders", _item(unit_price="1.001"), ("/items/0/unit_price",)),
    ("POST /v1/orders", {"items": [{"product_id": 1, "quantity": 600_000}] * 2}, ("",)),
    ("POST /check_stock", {"product_id": 1}, ("/quantity",)),
    ("POST /create_order", {}, ("/user_id", "/items")),
    ("POST /v1/products", {}, ("/name", "/price", "/stock")),
    ("POST /v1/products", {**PRODUCT, "price": "free"}, ("/price",)),
    ("POST /v1/products", {**PRODUCT, "price": 1e300}, ("/price",)),
    ("POST /v1/products", {**PRODUCT, "stock": -1}, ("/stock",)),
    ("POST /v1/products", {**PRODUCT, "id": 0}, ("/id",)),
    ("PATCH /v1/products/{product}", {}, ("",)),
    ("PATCH /v1/products/{product}", {"price": None}, ("/price",)),
    ("POST /v1/products/{product}/stock-adjustments", {"delta": 0}, ("/delta", "/reason")),
    ("POST /update_stock", {"product_id": 1, "quantity": -1}, ("/quantity",)),
]


@pytest.mark.parametrize(("call", "body", "pointers"), INVALID_BODIES, ids=repr)
async def test_an_invalid_body_is_refused_with_pointers_to_its_errors(
    refusals: RefusalChecker, call: str, body: object, pointers: tuple[str, ...]
) -> None:
    client = "admin" if "products" in call or "update_stock" in call else "customer"
    await refusals.check(Refusal(call, body, 422, "invalid_body", pointers, client))


INVALID_PARAMETERS = [
    ("GET /v1/products?page_size=0", ("/page_size",), {}),
    ("GET /v1/products?page_size=ten", ("/page_size",), {}),
    ("GET /v1/orders?page_size=101", ("/page_size",), {}),
    ("GET /v1/orders?status=LOST", ("/status",), {}),
    ("GET /v1/orders?page_token=%21", ("/page_token",), {}),
    ("POST /v1/orders", ("/Idempotency-Key",), {"Idempotency-Key": "two words"}),
    ("POST /v1/orders", ("/Idempotency-Key",), {"Idempotency-Key": "x" * 256}),
    ("POST /create_order", ("/Idempotency-Key",), {"Idempotency-Key": "two words"}),
]


@pytest.mark.parametrize(("call", "pointers", "headers"), INVALID_PARAMETERS, ids=repr)
async def test_an_invalid_parameter_is_refused_by_name(
    refusals: RefusalChecker, call: str, pointers: tuple[str, ...], headers: Mapping[str, str]
) -> None:
    body = {"POST /v1/orders": ORDER, "POST /create_order": LEGACY_ORDER}.get(call)
    refusal = Refusal(call, body, 422, "invalid_parameter", pointers, headers=headers)
    await refusals.check(refusal)


@pytest.mark.parametrize(
    "path", ["/v1/products", "/v1/orders", "/v1/products/{product}/stock-movements"]
)
async def test_an_invalid_page_token_is_refused(refusals: RefusalChecker, path: str) -> None:
    call = f"GET {path}?page_token=bm9uZQ"
    await refusals.check(Refusal(call, None, 422, "invalid_page_token", client="admin"))


async def test_a_body_of_unknown_size_has_the_same_limit(refusals: RefusalChecker) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * (MEBIBYTE // 16)

    async with refusals.system.unchanged():
        response = await refusals.clients["anonymous"].http.post(
            "/v1/auth/login", content=endless()
        )
    assert problem(response) == (413, "body_too_large")


async def test_a_body_that_does_not_arrive_times_out(refusals: RefusalChecker) -> None:
    async with refusals.system.another_gateway(HTTP_BODY_SECONDS="0.3") as url:
        address = urlsplit(url)
        async with refusals.system.unchanged(), asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"POST /login HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n{")
            response = await reader.read()
            writer.close()
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in response
