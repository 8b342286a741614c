"""Valid requests that the API refuses, with the status and code of each."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from service_kit.grpc.health import is_serving
from tests.support.api_client import PASSWORD, problem
from tests.support.infrastructure import CHECKOUT
from tests.support.ports import free_port
from tests.support.system import System
from tests.support.waiting import eventually
from tests.system.refusals.checker import (
    ACCOUNT,
    LEGACY_ORDER,
    MEBIBYTE,
    ORDER,
    PRODUCT,
    Refusal,
    RefusalChecker,
)

UNKNOWN_ORDER = "01a20794-d4b6-7036-81ab-9e0730fdbdb4"

REFUSALS = [
    Refusal(
        "POST /v1/auth/login",
        {"email": "{email}", "password": "wrong"},
        401,
        "invalid_credentials",
    ),
    Refusal(
        "POST /v1/auth/login",
        {"email": "unknown@example.com", "password": PASSWORD},
        401,
        "invalid_credentials",
    ),
    Refusal("POST /login", {"email": "{email}", "password": "wrong"}, 401, "invalid_credentials"),
    Refusal("POST /v1/auth/refresh", {"refresh_token": "unknown"}, 401, "invalid_refresh_token"),
    Refusal("POST /v1/auth/logout", {"refresh_token": "unknown"}, 401, "invalid_refresh_token"),
    Refusal("POST /v1/products", b"{", 401, "unauthenticated", client="anonymous"),
    Refusal("POST /v1/products", {}, 403, "forbidden"),
    Refusal("POST /v1/products", PRODUCT, 403, "forbidden"),
    Refusal("PATCH /v1/products/{product}", {"price": "0.01"}, 403, "forbidden"),
    Refusal(
        "POST /v1/products/{product}/stock-adjustments",
        {"delta": 1, "reason": "mine"},
        403,
        "forbidden",
    ),
    Refusal("GET /v1/products/{product}/stock-movements", None, 403, "forbidden"),
    Refusal("POST /update_stock", {"product_id": 1, "quantity": 1}, 403, "forbidden"),
    Refusal(
        "POST /create_order",
        {
            "user_id": "{other_user_id}",
            "items": [
                {
                    "product_id": "{product}",
                    "quantity": 1,
                    "unit_price": "12.50",
                    "total_price": "12.50",
                }
            ],
        },
        403,
        "forbidden",
    ),
    Refusal("GET /v1/orders/{other_order}", None, 404, "not_found"),
    Refusal("POST /v1/orders/{other_order}/cancel", None, 404, "not_found"),
    Refusal(f"GET /v1/orders/{UNKNOWN_ORDER}", None, 404, "not_found"),
    Refusal("GET /v1/orders/nonsense", None, 404, "not_found"),
    Refusal("GET /v1/products/9000000000", None, 404, "not_found"),
    Refusal("GET /v1/products/nonsense", None, 404, "not_found"),
    Refusal("POST /check_stock", {"product_id": 2**62, "quantity": 1}, 404, "not_found"),
    Refusal(
        "POST /update_stock", {"product_id": 2**62, "quantity": 1}, 404, "not_found", client="admin"
    ),
    Refusal("PATCH /v1/products/9000000000", {"price": 1}, 404, "not_found", client="admin"),
    Refusal(
        "POST /v1/products/9000000000/stock-adjustments",
        {"delta": 1, "reason": "found"},
        404,
        "not_found",
        client="admin",
    ),
    Refusal("GET /v1/products/9000000000/stock-movements", None, 404, "not_found", client="admin"),
    Refusal("GET /v1/nothing", None, 404, "not_found"),
    Refusal("GET /docs/../../etc/passwd", None, 404, "not_found"),
    Refusal("DELETE /v1/products/{product}", None, 405, "method_not_allowed"),
    Refusal("GET /login", None, 405, "method_not_allowed"),
    Refusal("POST /v1/auth/register", {**ACCOUNT, "email": "{email}"}, 409, "email_taken"),
    Refusal("POST /register", {**ACCOUNT, "email": "{email}"}, 409, "email_taken"),
    Refusal(
        "POST /v1/products", {**PRODUCT, "id": "{product}"}, 409, "product_exists", client="admin"
    ),
    Refusal(
        "POST /v1/orders",
        {"items": [{"product_id": "{product}", "quantity": 8}]},
        409,
        "insufficient_stock",
    ),
    Refusal(
        "POST /v1/orders",
        {"items": [{"product_id": "{product}", "quantity": 4}] * 2},
        409,
        "insufficient_stock",
    ),
    Refusal(
        "POST /v1/products/{product}/stock-adjustments",
        {"delta": -8, "reason": "lost"},
        409,
        "insufficient_stock",
        client="admin",
    ),
    Refusal(
        "POST /update_stock",
        {"product_id": "{product}", "quantity": 8},
        409,
        "insufficient_stock",
        client="admin",
    ),
    Refusal(
        "POST /v1/orders",
        {"items": [{"product_id": "{product}", "quantity": 1, "unit_price": "12.49"}]},
        409,
        "price_changed",
    ),
    Refusal(
        "POST /v1/orders",
        {"items": [{"product_id": "{product}", "quantity": 2}]},
        409,
        "idempotency_key_reused",
        headers={"Idempotency-Key": "used"},
    ),
    Refusal(
        "POST /create_order",
        LEGACY_ORDER,
        409,
        "idempotency_key_reused",
        headers={"Idempotency-Key": "used"},
    ),
    Refusal(
        "POST /v1/products",
        {**PRODUCT, "description": "x" * MEBIBYTE},
        413,
        "body_too_large",
        client="admin",
    ),
    Refusal(
        "POST /v1/orders", ORDER, 415, "unsupported_encoding", headers={"Content-Encoding": "gzip"}
    ),
    Refusal(
        "POST /v1/orders",
        {"items": [{"product_id": 2**62, "quantity": 1}]},
        422,
        "unknown_product",
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
async def test_a_request_is_refused_with_its_status_and_code(
    refusals: RefusalChecker, refusal: Refusal
) -> None:
    response = await refusals.check(refusal)
    if refusal.status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    if refusal.status == 405:
        assert response.headers["Allow"]


async def test_an_email_in_other_case_is_taken(refusals: RefusalChecker) -> None:
    account = {**ACCOUNT, "email": refusals.values["email"].upper()}
    await refusals.check(Refusal("POST /v1/auth/register", account, 409, "email_taken"))


async def test_more_passwords_than_can_be_hashed_are_refused_as_overload(
    refusals: RefusalChecker,
) -> None:
    body = {"email": "unknown@example.com", "password": PASSWORD}
    async with (
        _slow_user_service(refusals.system) as address,
        refusals.system.another_gateway(USER_SERVICE_ADDR=address) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
        refusals.system.unchanged(),
    ):
        responses = await asyncio.gather(*(client.post("/login", json=body) for _ in range(5)))
    assert (
        sorted(map(problem, responses))
        == [(401, "invalid_credentials")] + [(503, "overloaded")] * 4
    )
    for response in responses:
        assert response.status_code == 401 or int(response.headers["Retry-After"]) >= 1


@asynccontextmanager
async def _slow_user_service(system: System) -> AsyncIterator[str]:
    """Another user service, which hashes one password at a time, for about a second."""
    port = str(free_port())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "user_service"),
        cwd=CHECKOUT,
        env={
            **system.environment,
            "USER_DATABASE_URL": system.exported_environment["USER_DATABASE_URL"],
            "USER_SERVICE_PORT": port,
            "PASSWORD_HASH_MEMORY_COST": "47104",
            "PASSWORD_HASH_TIME_COST": "20",
            "PASSWORD_HASH_WORKERS": "1",
            "PASSWORD_HASH_QUEUE": "0",
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    address = f"127.0.0.1:{port}"
    try:
        await eventually(lambda: asyncio.to_thread(is_serving, address), within=30)
        yield address
    finally:
        process.terminate()
        status = await asyncio.wait_for(process.wait(), timeout=20)
    assert status == 0


async def test_a_refused_order_has_the_available_stock(refusals: RefusalChecker) -> None:
    body = {"items": [{"product_id": refusals.values["product"], "quantity": 8}]}
    response = await refusals.clients["customer"].call("POST", "/v1/orders", body)
    assert response.json()["metadata"] == {
        "product_id": refusals.values["product"],
        "requested": 8,
        "available": 7,
    }
