"""Readiness, shutdown, metrics and documentation."""

import asyncio

import pytest

from service_kit.errors import PortUnavailable
from tests.unit.gateway.backend import ORDER, Shop, running_shop
from tests.unit.gateway.checks import assert_json, assert_problem


async def test_a_shutdown_finishes_requests_in_progress(shop: Shop) -> None:
    shop.orders.delay_seconds = 0.3
    headers = {**shop.bearer(), "Prefer": "wait=30"}
    in_progress = asyncio.create_task(shop.client.post("/v1/orders", json=ORDER, headers=headers))
    ready = await shop.client.get("/readyz")
    assert assert_json(ready, 200, "Readiness")["status"] == "ready"
    shop.stop.set()
    stopping = await shop.client.get("/readyz")
    assert_problem(stopping, 503, "not_ready")
    assert stopping.headers["Connection"] == "close"
    response = await in_progress
    assert assert_json(response, 201, "Order")["status"] == "PENDING"
    await shop.http.aclose()
    with pytest.raises(OSError, match=r"Connect|refused"):
        await asyncio.open_connection("127.0.0.1", shop.gateway.settings.api_gateway_port)


async def test_an_unavailable_dependency_is_reported(shop: Shop) -> None:
    await shop.services.aclose()
    response = await shop.client.post("/v1/orders", json=ORDER, headers=shop.bearer())
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "1"
    ready = assert_problem(await shop.client.get("/readyz"), 503, "not_ready")
    assert set(ready["metadata"]["dependencies"].values()) == {"not serving"}  # type: ignore[index]
    assert assert_json(await shop.client.get("/healthz"), 200, "Health") == {"status": "alive"}


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
        assert_problem(remote, 404, "not_found")
    async with running_shop() as shop:
        proxied = await shop.client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})
        assert_problem(proxied, 404, "not_found")


async def test_the_documentation_page_needs_no_other_host(shop: Shop) -> None:
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


async def test_a_port_in_use_is_reported(shop: Shop) -> None:
    port = shop.gateway.settings.api_gateway_port
    with pytest.raises(PortUnavailable, match=str(port)):
        async with running_shop(api_gateway_port=port):
            pass
