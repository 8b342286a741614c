"""The gateway over real HTTP, before small neighbours over real gRPC."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from api_gateway.openapi import describe
from api_gateway.routes import _API
from proto import order_pb2, user_pb2
from service_kit.errors import PortUnavailable
from tests.unit.gateway_backend import (
    ADMIN_ID,
    CUSTOMER_ID,
    OTHER_ID,
    PASSWORD,
    Shop,
    running_shop,
)

ORDER = {"items": [{"product_id": 1, "quantity": 2}]}
DOCUMENT = describe(_API)
REGISTRY = Registry().with_resource(
    "urn:api", Resource.from_contents(DOCUMENT, default_specification=DRAFT202012)
)


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as running:
        yield running


def check(answer: httpx.Response, status: int, schema: str) -> dict[str, object]:
    """The answer's JSON, after checking its status and its documented schema."""
    assert answer.status_code == status, answer.text
    kind = "application/problem+json" if schema == "ProblemDocument" else "application/json"
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Request-Id"]
    body: dict[str, object] = answer.json()
    reference = {"$ref": f"urn:api#/components/schemas/{schema}"}
    OAS31Validator(reference, registry=REGISTRY).validate(body)
    return body


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    body = check(answer, status, "ProblemDocument")
    assert (body["status"], body["code"]) == (status, code)
    return body


async def exchange(shop: Shop, request: bytes) -> bytes:
    """What the server sends until it closes the connection."""
    port = shop.gateway.settings.api_gateway_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_a_user_registers_logs_in_and_out(shop: Shop) -> None:
    account = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    for path, taken in (("/v1/auth/register", "/register"), ("/register", "/v1/auth/register")):
        account["email"] = f"{path.count('/')}@example.com"
        assert check(await shop.client.post(path, json=account), 201, "User")["role"] == "customer"
        problem(await shop.client.post(taken, json=account), 409, "email_taken")
    for path in ("/v1/auth/login", "/login"):
        tokens = check(await shop.client.post(path, json=account), 200, "TokenPair")
        assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
        bearer = {"Authorization": f"bearer {tokens['access_token']}"}
        me = check(await shop.client.get("/v1/users/me", headers=bearer), 200, "User")
        assert me["email"] == account["email"]
    for token, status in (("first", 200), ("spent", 401)):
        body = {"refresh_token": token}
        refreshed = await shop.client.post("/v1/auth/refresh", json=body)
        assert refreshed.status_code == status
        out = await shop.client.post("/v1/auth/logout", json=body)
        assert out.status_code == {200: 204, 401: 401}[status]
    problem(refreshed, 401, "invalid_refresh_token")


async def test_wrong_passwords_are_refused_and_then_limited() -> None:
    async with running_shop(login_failure_rate="2/day") as shop:
        wrong = {"email": "ada@example.com", "password": "wrong"}
        for _ in range(2):
            answer = await shop.client.post("/login", json=wrong)
            problem(answer, 401, "invalid_credentials")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        answer = await shop.client.post("/v1/auth/login", json=wrong)
        problem(answer, 429, "rate_limited")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_who_may_call_what(shop: Shop) -> None:
    adjustment = {"delta": 1, "reason": "found one"}
    path = "/v1/products/1/stock-adjustments"
    nobody = await shop.client.post(path, json=adjustment)
    problem(nobody, 401, "unauthenticated")
    assert "error=" not in nobody.headers["WWW-Authenticate"]
    forged = await shop.client.post(path, json=adjustment, headers={"Authorization": "Bearer x"})
    problem(forged, 401, "unauthenticated")
    assert 'error="invalid_token"' in forged.headers["WWW-Authenticate"]
    customer = await shop.client.post(path, json=adjustment, headers=shop.bearer())
    problem(customer, 403, "forbidden")
    admin = await shop.client.post(path, json=adjustment, headers=shop.bearer(ADMIN_ID))
    assert check(admin, 201, "Stock") == {"product_id": 1, "stock": 11}


async def test_an_administrator_who_no_longer_is_one_is_refused_at_once(shop: Shop) -> None:
    headers = shop.bearer(ADMIN_ID)
    new = {"name": "Phone", "price": 1, "stock": 1}
    check(await shop.client.post("/v1/products", json=new, headers=headers), 201, "Product")
    shop.users.users[ADMIN_ID].role = user_pb2.ROLE_CUSTOMER
    problem(await shop.client.post("/v1/products", json=new, headers=headers), 403, "forbidden")
    shop.users.users[ADMIN_ID].role = user_pb2.ROLE_ADMIN
    shop.users.users[ADMIN_ID].active = False
    problem(await shop.client.post("/v1/products", json=new, headers=headers), 403, "forbidden")


async def test_the_catalogue(shop: Shop) -> None:
    admin = shop.bearer(ADMIN_ID)
    new = {"id": 101, "name": "Phone", "price": "699.90", "stock": 3, "description": "small"}
    created = await shop.client.post("/v1/products", json=new, headers=admin)
    assert check(created, 201, "Product")["price"] == "699.90"
    assert created.headers["Location"] == "/v1/products/101"
    again = await shop.client.post("/v1/products", json=new, headers=admin)
    problem(again, 409, "product_exists")
    changed = await shop.client.patch("/v1/products/101", json={"price": 650.5}, headers=admin)
    product = check(changed, 200, "Product")
    assert (product["price"], product["name"]) == ("650.50", "Phone")
    listed = await shop.client.get("/v1/products", params={"query": "PHO", "page_size": 5})
    assert len(check(listed, 200, "ProductPage")["products"]) == 1  # type: ignore[arg-type]
    bad_page = await shop.client.get("/v1/products", params={"page_token": "bm90aGluZw"})
    problem(bad_page, 422, "invalid_page_token")
    bad_size = await shop.client.get("/v1/products", params={"page_size": "0"})
    assert problem(bad_size, 422, "invalid_parameter")["errors"]
    ledger = await shop.client.get("/v1/products/101/stock-movements", headers=admin)
    check(ledger, 200, "StockMovementPage")
    for missing in ("999", "0", "x", "1.0", "9" * 19, "9" * 30, "%00"):
        problem(await shop.client.get(f"/v1/products/{missing}"), 404, "not_found")


async def test_stock_under_its_short_names(shop: Shop) -> None:
    asked = await shop.client.post("/check_stock", json={"product_id": 1, "quantity": 11})
    assert check(asked, 200, "Availability") == {"available": False, "stock": 10}
    unknown = await shop.client.post("/check_stock", json={"product_id": 7, "quantity": 1})
    problem(unknown, 404, "not_found")
    admin = shop.bearer(ADMIN_ID)
    take = {"product_id": 1, "quantity": 4}
    taken = await shop.client.post("/update_stock", json=take, headers=admin)
    assert check(taken, 200, "Stock") == {"product_id": 1, "stock": 6}
    short = {"product_id": 1, "quantity": 7}
    refused = problem(
        await shop.client.post("/update_stock", json=short, headers=admin),
        409,
        "insufficient_stock",
    )
    assert refused["metadata"] == {"product_id": 1, "requested": 7, "available": 6}


async def test_an_order_is_placed_shown_and_cancelled(shop: Shop) -> None:
    headers = shop.bearer()
    placed = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    order = check(placed, 201, "Order")
    assert (order["status"], order["total_price"]) == ("PENDING", "1000.00")
    path = f"/v1/orders/{order['id']}"
    assert placed.headers["Location"] == path
    check(await shop.client.get(path, headers=headers), 200, "Order")
    mine = await shop.client.get("/v1/orders", headers=headers)
    assert len(check(mine, 200, "OrderPage")["orders"]) == 1  # type: ignore[arg-type]
    cancelled = await shop.client.post(f"{path}/cancel", headers=headers)
    assert check(cancelled, 200, "Order")["status"] == "CANCELLED"
    shop.orders.orders[str(order["id"])].status = order_pb2.ORDER_STATUS_REJECTED
    refused = await shop.client.post(f"{path}/cancel", headers=headers)
    problem(refused, 409, "not_cancellable")


async def test_anothers_order_is_not_there_but_an_administrator_sees_all(shop: Shop) -> None:
    placed = await shop.client.post("/v1/orders", json=ORDER, headers=shop.bearer())
    path = placed.headers["Location"]
    other, admin = shop.bearer(OTHER_ID), shop.bearer(ADMIN_ID)
    problem(await shop.client.get(path, headers=other), 404, "not_found")
    problem(await shop.client.post(f"{path}/cancel", headers=other), 404, "not_found")
    assert (await shop.client.get("/v1/orders", headers=other)).json()["orders"] == []
    assert (await shop.client.get(path, headers=admin)).status_code == 200
    assert len((await shop.client.get("/v1/orders", headers=admin)).json()["orders"]) == 1
    shop.users.users[ADMIN_ID].role = user_pb2.ROLE_CUSTOMER
    problem(await shop.client.get(path, headers=admin), 404, "not_found")
    problem(await shop.client.get("/v1/orders/nonsense", headers=other), 404, "not_found")


async def test_what_an_order_may_be_refused_for(shop: Shop) -> None:
    headers = shop.bearer()
    unknown = {"items": [{"product_id": 7, "quantity": 1}]}
    problem(
        await shop.client.post("/v1/orders", json=unknown, headers=headers), 422, "unknown_product"
    )
    dearer = {"items": [{"product_id": 1, "quantity": 1, "unit_price": "1.00"}]}
    refused = await shop.client.post("/v1/orders", json=dearer, headers=headers)
    assert problem(refused, 409, "price_changed")["metadata"] == {"unit_price": "500.00"}
    wrong = {"items": [{"product_id": 1, "quantity": 1.0}]}
    refused = await shop.client.post("/v1/orders", json=wrong, headers=headers)
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/items/0/quantity"]
    for key in ("", "with space", "ü".encode(), "x" * 256):
        sent = [*headers.items(), ("Idempotency-Key", key)]
        refused = await shop.client.post("/v1/orders", json=ORDER, headers=sent)  # type: ignore[arg-type]
        problem(refused, 422, "invalid_parameter")


async def test_the_same_key_answers_with_the_same_order(shop: Shop) -> None:
    headers = {**shop.bearer(), "Idempotency-Key": "k1"}
    first = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    again = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]


async def test_an_order_under_its_short_name(shop: Shop) -> None:
    item = {"product_id": 2, "quantity": 3, "unit_price": 19.99, "total_price": "59.97"}
    mine = {"user_id": CUSTOMER_ID, "items": [item]}
    headers, admin = shop.bearer(), shop.bearer(ADMIN_ID)
    placed = await shop.client.post("/create_order", json=mine, headers=headers)
    assert check(placed, 201, "Order")["total_price"] == "59.97"
    wrong_total = {**mine, "items": [{**item, "total_price": "59.98"}]}
    refused = await shop.client.post("/create_order", json=wrong_total, headers=headers)
    problem(refused, 409, "price_changed")
    wrong_price = {**mine, "items": [{**item, "unit_price": 1, "total_price": 3}]}
    refused = await shop.client.post("/create_order", json=wrong_price, headers=headers)
    problem(refused, 409, "price_changed")
    for_other = {**mine, "user_id": OTHER_ID}
    refused = await shop.client.post("/create_order", json=for_other, headers=headers)
    problem(refused, 403, "forbidden")
    placed = await shop.client.post("/create_order", json=for_other, headers=admin)
    assert check(placed, 201, "Order")["user_id"] == OTHER_ID


async def test_orders_that_arrive_together_travel_together_in_their_own_contexts(
    shop: Shop,
) -> None:
    shop.orders.seconds = 0.05
    answers = await asyncio.gather(
        *(
            shop.client.post(
                "/v1/orders", json=ORDER, headers={**shop.bearer(), "X-Request-Id": f"r{number}"}
            )
            for number in range(40)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    assert sum(shop.orders.batches) == 40
    assert len(shop.orders.batches) < 10
    assert {context.request_id for context in shop.orders.contexts} == {f"r{n}" for n in range(40)}
    assert all(len(context.traceparent) == 55 for context in shop.orders.contexts)


async def test_a_client_that_prefers_to_wait_gets_the_settled_order(shop: Shop) -> None:
    headers = {**shop.bearer(), "Prefer": "wait=20"}
    waiting = asyncio.create_task(shop.client.post("/v1/orders", json=ORDER, headers=headers))
    await shop.orders.placed.wait()
    shop.orders.settled.set()
    answer = await waiting
    assert check(answer, 201, "Order")["status"] == "CONFIRMED"
    assert answer.headers["Preference-Applied"] == "wait=20"


async def test_waiting_ends_with_the_order_as_it_is(shop: Shop) -> None:
    headers = {**shop.bearer(), "Prefer": "wait=1"}
    answer = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    assert check(answer, 201, "Order")["status"] == "PENDING"


async def test_stopping_finishes_what_is_under_way(shop: Shop) -> None:
    shop.orders.seconds = 0.3
    headers = {**shop.bearer(), "Prefer": "wait=30"}
    under_way = asyncio.create_task(shop.client.post("/v1/orders", json=ORDER, headers=headers))
    ready = await shop.client.get("/readyz")
    assert check(ready, 200, "Readiness")["status"] == "ready"
    shop.stop.set()
    stopping = await shop.client.get("/readyz")
    problem(stopping, 503, "not_ready")
    assert stopping.headers["Connection"] == "close"
    answer = await under_way
    assert check(answer, 201, "Order")["status"] == "PENDING"
    await shop.http.aclose()
    with pytest.raises(OSError, match=r"Connect|refused"):
        await asyncio.open_connection("127.0.0.1", shop.gateway.settings.api_gateway_port)


async def test_a_neighbour_that_is_down_is_told_of(shop: Shop) -> None:
    await shop.neighbours.aclose()
    answer = await shop.client.post("/v1/orders", json=ORDER, headers=shop.bearer())
    problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    ready = problem(await shop.client.get("/readyz"), 503, "not_ready")
    assert set(ready["metadata"]["neighbours"].values()) == {"not serving"}  # type: ignore[index]
    assert check(await shop.client.get("/healthz"), 200, "Health") == {"status": "alive"}


async def test_bodies_that_are_not_what_they_should_be(shop: Shop) -> None:
    post, headers = shop.client.post, shop.bearer()
    for body in (b"", b"{", b"\xff", b'{"items": NaN}', b'"\\ud800"', b"[" * 5000):
        problem(await post("/v1/orders", content=body, headers=headers), 400, "invalid_json")
    problem(await post("/v1/orders", content=b"[]", headers=headers), 422, "invalid_body")
    large = b"x" * (1024 * 1024 + 1)
    problem(await post("/v1/orders", content=large, headers=headers), 413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65536

    problem(await post("/v1/orders", content=chunks(), headers=headers), 413, "body_too_large")
    packed = {**headers, "Content-Encoding": "gzip"}
    problem(await post("/v1/orders", content=b"{}", headers=packed), 415, "unsupported_encoding")
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    answer = await post("/v1/orders", content=b'{"items":[{"product_id":1,"quantity":1}]}',
                        headers=form)  # fmt: skip
    check(answer, 201, "Order")


async def test_paths_and_methods_that_are_not_served(shop: Shop) -> None:
    problem(await shop.client.get("/v2/orders"), 404, "not_found")
    wrong = await shop.client.delete("/v1/orders")
    problem(wrong, 405, "method_not_allowed")
    assert set(wrong.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}
    options = await shop.client.options("/v1/orders")
    assert (options.status_code, options.headers["Allow"]) == (204, wrong.headers["Allow"])
    head = await shop.client.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "request_line",
    [b"GET /\xff HTTP/1.1", b"BREW /pot HTTP/1.1", b"GET /" + b"a" * 9000 + b" HTTP/1.1", b"\x16"],
    ids=["raw byte", "unknown method", "long line", "not HTTP"],
)
async def test_what_is_not_http_is_told_so(shop: Shop, request_line: bytes) -> None:
    answer = await exchange(shop, request_line + b"\r\nHost: a\r\n\r\n")
    assert b" 400 Bad Request" in answer
    assert b'"code":"bad_request"' in answer


async def test_a_token_that_is_no_text_is_just_a_bad_one(shop: Shop) -> None:
    answer = await exchange(
        shop,
        b"GET /v1/users/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Authorization: Bearer \xff.\xff.\xff\r\nX-Request-Id: \xff\r\nTraceparent: \xff\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_slow_clients_are_let_go() -> None:
    async with running_shop(http_idle_seconds=0.3, http_body_seconds=0.3) as shop:
        assert await exchange(shop, b"") == b""
        assert await exchange(shop, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ") == b""
        answer = await exchange(
            shop, b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
        )
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_the_request_id_is_the_clients_if_it_is_sane(shop: Shop) -> None:
    for sent, kept in (("abc-1.2:3", True), ("x" * 129, False), ("a b", False), ("<x>", False)):
        answer = await shop.client.get("/healthz", headers={"X-Request-Id": sent})
        assert (answer.headers["X-Request-Id"] == sent) == kept
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await shop.client.get("/healthz", headers={"Traceparent": trace})
    assert answer.headers["X-Request-Id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_other_origins_are_let_in_only_if_allowed(shop: Shop) -> None:
    origin = {"Origin": "https://shop.example"}
    assert (
        "Access-Control-Allow-Origin"
        not in (await shop.client.get("/healthz", headers=origin)).headers
    )
    async with running_shop(cors_allowed_origins=("https://shop.example",)) as open_shop:
        answer = await open_shop.client.get("/healthz", headers=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert answer.headers["Vary"] == "Origin"
        asking = {**origin, "Access-Control-Request-Method": "POST"}
        preflight = await open_shop.client.options("/v1/orders", headers=asking)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Idempotency-Key" in preflight.headers["Access-Control-Allow-Headers"]
        other = await open_shop.client.get("/healthz", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        refused = await open_shop.client.get("/v1/orders", headers=origin)
        assert "Access-Control-Allow-Origin" in refused.headers


async def test_metrics_are_for_local_clients() -> None:
    async with running_shop(trusted_proxy_hops=1) as shop:
        await shop.client.get("/v1/products")
        await shop.client.get("/made-up")
        local = await shop.client.get("/metrics")
        assert local.status_code == 200
        assert 'route="/v1/products",status="200"' in local.text
        assert "made-up" not in local.text
        remote = await shop.client.get(
            "/metrics", headers={"X-Forwarded-For": "127.0.0.1, 8.8.8.8"}
        )
        problem(remote, 404, "not_found")
    async with running_shop() as shop:
        proxied = await shop.client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})
        problem(proxied, 404, "not_found")


async def test_the_clients_address_is_believed_only_from_trusted_proxies() -> None:
    async def try_from(shop: Shop, forwarded: str) -> int:
        wrong = {"email": "ada@example.com", "password": "wrong"}
        headers = {"X-Forwarded-For": forwarded}
        return (await shop.client.post("/login", json=wrong, headers=headers)).status_code

    async with running_shop(login_rate="1/day", trusted_proxy_hops=1) as shop:
        assert [await try_from(shop, f"1.1.1.1, 2.2.2.{n}") for n in (1, 2, 2)] == [401, 401, 429]
    async with running_shop(login_rate="1/day") as shop:
        assert [await try_from(shop, f"2.2.2.{n}") for n in (1, 2)] == [401, 429]


async def test_the_manual_is_served_from_here_alone(shop: Shop) -> None:
    document = await shop.client.get("/openapi.json")
    assert document.json()["openapi"].startswith("3.1")
    page = await shop.client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js", "favicon-32x32.png"):
        assert name in page.text or name == "start.js"
        assert (await shop.client.get(f"/docs/{name}")).status_code == 200
    for name in ("LICENSE", "..%2Fapp.py", "%2e%2e%2fsettings.py"):
        assert (await shop.client.get(f"/docs/{name}")).status_code == 404


async def test_a_port_in_use_is_told_of(shop: Shop) -> None:
    port = shop.gateway.settings.api_gateway_port
    with pytest.raises(PortUnavailable, match=str(port)):
        async with running_shop(api_gateway_port=port):
            pass
