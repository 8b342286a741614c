"""Everything the API refuses: how it says so, and that nothing changes by it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
import pytest_asyncio

from service_kit.grpc.health import is_serving
from tests.support.api_client import PASSWORD, ApiClient, Json, problem
from tests.support.infrastructure import CHECKOUT
from tests.support.system import System
from tests.support.waiting import eventually, free_port

MEBIBYTE = 1024 * 1024
NOBODYS_ORDER = "01a20794-d4b6-7036-81ab-9e0730fdbdb4"
ORDER: Json = {"items": [{"product_id": 1, "quantity": 1}]}
ACCOUNT = {"email": "new@example.com", "password": PASSWORD, "name": "Ada"}
ORDER_FOR_ME: Json = {
    "user_id": "{me}",
    "items": [
        {"product_id": "{product}", "quantity": 2, "unit_price": "12.50", "total_price": "25.00"}
    ],
}
PRODUCT: Json = {"name": "thing", "price": "1.00", "stock": 1}


@dataclass(frozen=True)
class Refusal:
    """A call, who makes it, and how it is refused; {braces} in the path name things of Scene."""

    call: str
    body: object
    status: int
    code: str
    pointers: tuple[str, ...] = ()
    who: str = "customer"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.call} {self.code} {' '.join(self.pointers)}"


@dataclass(frozen=True)
class Scene:
    """What there is in the shop, and who calls."""

    system: System
    callers: Mapping[str, ApiClient]
    things: Mapping[str, Any]

    async def response(self, refusal: Refusal) -> httpx.Response:
        method, path = refusal.call.split(" ", 1)
        return await self.callers[refusal.who].call(
            method, path.format(**self.things), self._filled(refusal.body), refusal.headers
        )

    def _filled(self, body: object) -> object:
        """The body with {braces} in its strings filled, as in paths."""
        if isinstance(body, dict):
            return {key: self._filled(value) for key, value in body.items()}
        if isinstance(body, list):
            return [self._filled(value) for value in body]
        return self.things[body[1:-1]] if isinstance(body, str) and body[:1] == "{" else body


@pytest_asyncio.fixture(scope="module")
async def scene(system: System, anonymous: ApiClient, admin: ApiClient) -> AsyncIterator[Scene]:
    customer, other = await anonymous.register(), await anonymous.register()
    product = await admin.create_product(stock=10, price="12.50")
    mine = await customer.place_order(product)
    await customer.place_order(product, 1, Idempotency_Key="used")
    theirs = await other.place_order(product)
    things = {
        "product": product,
        "mine": mine["id"],
        "theirs": theirs["id"],
        "other": other.user_id,
        "me": customer.user_id,
        "email": customer.email,
    }
    callers = {"anonymous": anonymous, "customer": customer, "admin": admin}
    yield Scene(system, callers, things)


async def is_refused(scene: Scene, refusal: Refusal) -> httpx.Response:
    """Make the call, which is refused just so while not a row changes; the response."""
    async with scene.system.unchanged():
        response = await scene.response(refusal)
    assert problem(response) == (refusal.status, refusal.code)
    pointers = [fault["pointer"] for fault in response.json().get("errors", ())]
    assert pointers == list(refusal.pointers)
    assert all(fault["detail"] for fault in response.json().get("errors", ()))
    return response


def _item(**changes: object) -> Json:
    return {"items": [{"product_id": 1, "quantity": 1, **changes}]}


NO_JSON = [b"{", b"", b'{"items": [}', b"NaN", b"\xff\xfe", b"[" * 10_000]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body[:9]))
@pytest.mark.parametrize("path", ["/v1/orders", "/v1/auth/login", "/create_order"])
async def test_what_is_no_json_is_a_bad_request(scene: Scene, path: str, body: bytes) -> None:
    await is_refused(scene, Refusal(f"POST {path}", body, 400, "invalid_json"))


MISFITS = [
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


@pytest.mark.parametrize(("call", "body", "pointers"), MISFITS, ids=repr)
async def test_a_body_that_does_not_fit_is_told_where(
    scene: Scene, call: str, body: object, pointers: tuple[str, ...]
) -> None:
    who = "admin" if "products" in call or "update_stock" in call else "customer"
    await is_refused(scene, Refusal(call, body, 422, "invalid_body", pointers, who))


PARAMETERS = [
    ("GET /v1/products?page_size=0", ("/page_size",), {}),
    ("GET /v1/products?page_size=ten", ("/page_size",), {}),
    ("GET /v1/orders?page_size=101", ("/page_size",), {}),
    ("GET /v1/orders?status=LOST", ("/status",), {}),
    ("GET /v1/orders?page_token=%21", ("/page_token",), {}),
    ("POST /v1/orders", ("/Idempotency-Key",), {"Idempotency-Key": "two words"}),
    ("POST /v1/orders", ("/Idempotency-Key",), {"Idempotency-Key": "x" * 256}),
    ("POST /create_order", ("/Idempotency-Key",), {"Idempotency-Key": "two words"}),
]


@pytest.mark.parametrize(("call", "pointers", "headers"), PARAMETERS, ids=repr)
async def test_a_parameter_that_does_not_fit_is_named(
    scene: Scene, call: str, pointers: tuple[str, ...], headers: Mapping[str, str]
) -> None:
    body = {"POST /v1/orders": ORDER, "POST /create_order": ORDER_FOR_ME}.get(call)
    refusal = Refusal(call, body, 422, "invalid_parameter", pointers, headers=headers)
    await is_refused(scene, refusal)


@pytest.mark.parametrize(
    "path", ["/v1/products", "/v1/orders", "/v1/products/{product}/stock-movements"]
)
async def test_a_page_token_of_nobodys_is_refused(scene: Scene, path: str) -> None:
    call = f"GET {path}?page_token=bm9uZQ"
    await is_refused(scene, Refusal(call, None, 422, "invalid_page_token", who="admin"))


PROTECTED = [
    ("GET /v1/users/me", None),
    ("POST /v1/products", PRODUCT),
    ("PATCH /v1/products/{product}", {"price": "2.00"}),
    ("POST /v1/products/{product}/stock-adjustments", {"delta": 1, "reason": "found"}),
    ("GET /v1/products/{product}/stock-movements", None),
    ("POST /v1/orders", ORDER),
    ("GET /v1/orders", None),
    ("GET /v1/orders/{mine}", None),
    ("POST /v1/orders/{mine}/cancel", None),
    ("POST /update_stock", {"product_id": 1, "quantity": 1}),
    ("POST /create_order", {"user_id": 1, **ORDER}),
]


@pytest.mark.parametrize(("call", "body"), PROTECTED)
async def test_without_a_token_nothing_is_done_for_users(
    scene: Scene, call: str, body: object
) -> None:
    refusal = Refusal(call, body, 401, "unauthenticated", who="anonymous")
    response = await is_refused(scene, refusal)
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="ecommerce"'


def _token(secret: str, algorithm: str = "HS256", **changes: object) -> str:
    """A token such as the gateway issues for an administrator, but for `changes`."""
    now = int(time.time())
    claims = {
        "iss": "ecommerce",
        "aud": "ecommerce-api",
        "sub": "1",
        "iat": now,
        "exp": now + 900,
        "jti": "system test",
        "role": "admin",
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, secret, algorithm=algorithm)


def test_a_forged_token_would_serve_but_for_what_is_wrong_with_it(system: System) -> None:
    """Otherwise the next test would prove nothing."""
    token = _token(system.environment["JWT_SECRET"])
    response = httpx.get(
        f"{system.gateway_url}/v1/users/me", headers={"Authorization": f"Bearer {token}"}
    )
    assert response.status_code == 200


def _bad_tokens(secret: str) -> dict[str, str]:
    header, claims, signature = _token(secret).split(".")
    return {
        "no token": "nonsense",
        "two parts": f"{header}.{claims}",
        "tampered signature": f"{header}.{claims}.{signature[::-1]}",
        "of another secret": _token("another secret, just as long as ours is"),
        "expired": _token(secret, exp=int(time.time()) - 1),
        "without expiry": _token(secret, exp=None),
        "for another audience": _token(secret, aud="somebody-else"),
        "without audience": _token(secret, aud=None),
        "of another issuer": _token(secret, iss="somebody-else"),
        "unsigned": _token("", algorithm="none"),
        "of another algorithm": _token(secret * 2, algorithm="HS512"),
        "of an unknown role": _token(secret, role="root"),
        "of no user": _token(secret, sub="0"),
    }


@pytest.mark.parametrize("which", _bad_tokens("a secret that is only there to name the cases"))
async def test_a_bad_token_is_no_token(scene: Scene, which: str) -> None:
    token = _bad_tokens(scene.system.environment["JWT_SECRET"])[which]
    headers = {"Authorization": f"Bearer {token}"}
    refusal = Refusal(
        "POST /v1/products", PRODUCT, 401, "unauthenticated", who="anonymous", headers=headers
    )
    response = await is_refused(scene, refusal)
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


async def test_an_account_that_is_not_there_cannot_be_shown(scene: Scene) -> None:
    token = _token(scene.system.environment["JWT_SECRET"], sub=str(2**62))
    headers = {"Authorization": f"Bearer {token}"}
    call = "GET /v1/users/me"
    await is_refused(scene, Refusal(call, None, 404, "not_found", who="anonymous", headers=headers))


async def test_another_scheme_is_no_token(scene: Scene) -> None:
    headers = {"Authorization": "Basic YWRhOmFkYQ=="}
    call = "GET /v1/users/me"
    await is_refused(
        scene, Refusal(call, None, 401, "unauthenticated", who="anonymous", headers=headers)
    )


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
    Refusal("POST /v1/products", b"{", 401, "unauthenticated", who="anonymous"),
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
            "user_id": "{other}",
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
    Refusal("GET /v1/orders/{theirs}", None, 404, "not_found"),
    Refusal("POST /v1/orders/{theirs}/cancel", None, 404, "not_found"),
    Refusal(f"GET /v1/orders/{NOBODYS_ORDER}", None, 404, "not_found"),
    Refusal("GET /v1/orders/nonsense", None, 404, "not_found"),
    Refusal("GET /v1/products/9000000000", None, 404, "not_found"),
    Refusal("GET /v1/products/nonsense", None, 404, "not_found"),
    Refusal("POST /check_stock", {"product_id": 2**62, "quantity": 1}, 404, "not_found"),
    Refusal(
        "POST /update_stock", {"product_id": 2**62, "quantity": 1}, 404, "not_found", who="admin"
    ),
    Refusal("PATCH /v1/products/9000000000", {"price": 1}, 404, "not_found", who="admin"),
    Refusal(
        "POST /v1/products/9000000000/stock-adjustments",
        {"delta": 1, "reason": "found"},
        404,
        "not_found",
        who="admin",
    ),
    Refusal("GET /v1/products/9000000000/stock-movements", None, 404, "not_found", who="admin"),
    Refusal("GET /v1/nothing", None, 404, "not_found"),
    Refusal("GET /docs/../../etc/passwd", None, 404, "not_found"),
    Refusal("DELETE /v1/products/{product}", None, 405, "method_not_allowed"),
    Refusal("GET /login", None, 405, "method_not_allowed"),
    Refusal("POST /v1/auth/register", {**ACCOUNT, "email": "{email}"}, 409, "email_taken"),
    Refusal("POST /register", {**ACCOUNT, "email": "{email}"}, 409, "email_taken"),
    Refusal(
        "POST /v1/products", {**PRODUCT, "id": "{product}"}, 409, "product_exists", who="admin"
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
        who="admin",
    ),
    Refusal(
        "POST /update_stock",
        {"product_id": "{product}", "quantity": 8},
        409,
        "insufficient_stock",
        who="admin",
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
        ORDER_FOR_ME,
        409,
        "idempotency_key_reused",
        headers={"Idempotency-Key": "used"},
    ),
    Refusal(
        "POST /v1/products",
        {**PRODUCT, "description": "x" * MEBIBYTE},
        413,
        "body_too_large",
        who="admin",
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
async def test_what_may_not_be_is_refused(scene: Scene, refusal: Refusal) -> None:
    response = await is_refused(scene, refusal)
    if refusal.status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    if refusal.status == 405:
        assert response.headers["Allow"]


async def test_an_emails_case_does_not_make_it_another(scene: Scene) -> None:
    account = {**ACCOUNT, "email": scene.things["email"].upper()}
    await is_refused(scene, Refusal("POST /v1/auth/register", account, 409, "email_taken"))


async def test_a_body_that_does_not_tell_its_size_has_the_same_limit(scene: Scene) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * (MEBIBYTE // 16)

    async with scene.system.unchanged():
        response = await scene.callers["anonymous"].http.post("/v1/auth/login", content=endless())
    assert problem(response) == (413, "body_too_large")


async def test_a_body_that_does_not_come_is_not_waited_for(scene: Scene) -> None:
    async with scene.system.another_gateway(HTTP_BODY_SECONDS="0.3") as url:
        place = urlsplit(url)
        async with scene.system.unchanged(), asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(b"POST /login HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n{")
            response = await reader.read()
            writer.close()
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in response


async def test_more_passwords_than_can_be_hashed_are_put_off(scene: Scene) -> None:
    body = {"email": "unknown@example.com", "password": PASSWORD}
    async with (
        _slow_user_service(scene.system) as address,
        scene.system.another_gateway(USER_SERVICE_ADDR=address) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
        scene.system.unchanged(),
    ):
        responses = await asyncio.gather(*(client.post("/login", json=body) for _ in range(5)))
    told = sorted(map(problem, responses))
    assert told == [(401, "invalid_credentials")] + [(503, "overloaded")] * 4
    for response in responses:
        assert response.status_code == 401 or int(response.headers["Retry-After"]) >= 1


@asynccontextmanager
async def _slow_user_service(system: System) -> AsyncIterator[str]:
    """One more user service, which has room for a single password for about a second."""
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


async def test_a_refused_order_tells_what_would_be_possible(scene: Scene) -> None:
    body = {"items": [{"product_id": scene.things["product"], "quantity": 8}]}
    response = await scene.callers["customer"].call("POST", "/v1/orders", body)
    assert response.json()["metadata"] == {
        "product_id": scene.things["product"],
        "requested": 8,
        "available": 7,
    }
