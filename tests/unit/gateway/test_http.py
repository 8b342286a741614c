"""HTTP itself: bodies, paths, malformed requests, slow clients, CORS."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.gateway.backend import Shop, running_shop
from tests.unit.gateway.checks import assert_json, assert_problem, exchange


async def test_an_invalid_body_is_refused_and_its_content_type_is_ignored(shop: Shop) -> None:
    post, headers = shop.client.post, shop.bearer()
    for body in (b"", b"{", b"\xff", b'{"items": NaN}', b'"\\ud800"', b"[" * 5000):
        assert_problem(await post("/v1/orders", content=body, headers=headers), 400, "invalid_json")
    assert_problem(await post("/v1/orders", content=b"[]", headers=headers), 422, "invalid_body")
    encoded = await post(
        "/v1/orders", content=b"{}", headers={**headers, "Content-Encoding": "gzip"}
    )
    assert_problem(encoded, 415, "unsupported_encoding")
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    order = b'{"items":[{"product_id":1,"quantity":1}]}'
    assert_json(await post("/v1/orders", content=order, headers=form), 201, "Order")


async def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(shop: Shop) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65536

    for body in (b"x" * (1024 * 1024 + 1), chunks()):
        response = await shop.client.post("/v1/orders", content=body, headers=shop.bearer())
        assert_problem(response, 413, "body_too_large")


async def test_unknown_paths_and_methods_are_refused(shop: Shop) -> None:
    assert_problem(await shop.client.get("/v2/orders"), 404, "not_found")
    wrong = await shop.client.delete("/v1/orders")
    assert_problem(wrong, 405, "method_not_allowed")
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
async def test_a_malformed_request_gets_a_problem(shop: Shop, request_line: bytes) -> None:
    response = await exchange(shop, request_line + b"\r\nHost: a\r\n\r\n")
    assert b" 400 Bad Request" in response
    assert b'"code":"bad_request"' in response


async def test_slow_clients_are_disconnected() -> None:
    async with running_shop(http_idle_seconds=0.3, http_body_seconds=0.3) as shop:
        assert await exchange(shop, b"") == b""
        assert await exchange(shop, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ") == b""
        response = await exchange(
            shop, b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
        )
        assert response.startswith(b"HTTP/1.1 408 ")


async def test_a_valid_request_id_of_the_client_is_kept(shop: Shop) -> None:
    for sent, kept in (("abc-1.2:3", True), ("x" * 129, False), ("a b", False), ("<x>", False)):
        response = await shop.client.get("/healthz", headers={"X-Request-Id": sent})
        assert (response.headers["X-Request-Id"] == sent) == kept
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    response = await shop.client.get("/healthz", headers={"Traceparent": trace})
    assert response.headers["X-Request-Id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_other_origins_need_to_be_allowed(shop: Shop) -> None:
    origin = {"Origin": "https://shop.example"}
    response = await shop.client.get("/healthz", headers=origin)
    assert "Access-Control-Allow-Origin" not in response.headers
    async with running_shop(cors_allowed_origins=("https://shop.example",)) as open_shop:
        response = await open_shop.client.get("/healthz", headers=origin)
        assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert response.headers["Vary"] == "Origin"
        preflight_headers = {**origin, "Access-Control-Request-Method": "POST"}
        preflight = await open_shop.client.options("/v1/orders", headers=preflight_headers)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Idempotency-Key" in preflight.headers["Access-Control-Allow-Headers"]
        other = await open_shop.client.get("/healthz", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        refused = await open_shop.client.get("/v1/orders", headers=origin)
        assert "Access-Control-Allow-Origin" in refused.headers
