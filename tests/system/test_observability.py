"""What operators see: health, metrics, API documentation, logs and traces."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from grpc_health.v1 import health
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.api_client import WAIT, ApiClient, problem
from tests.support.system import System
from tests.support.waiting import eventually
from tests.system import queues

DEPENDENCIES = ("user_service", "inventory_service", "order_service")
COMMON_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


async def test_health_and_readiness_are_reported(anonymous: ApiClient) -> None:
    assert await anonymous.get("/healthz") == {"status": "alive"}
    assert await anonymous.get("/readyz") == {
        "status": "ready",
        "dependencies": dict.fromkeys(DEPENDENCIES, "serving"),
    }


async def test_readiness_names_a_dependency_that_hangs(
    system: System, anonymous: ApiClient
) -> None:
    async with system.paused("inventory_service"):
        response = await anonymous.call("GET", "/readyz")
        assert problem(response) == (503, "not_ready")
        assert int(response.headers["Retry-After"]) >= 1
        states = dict.fromkeys(DEPENDENCIES, "serving") | {"inventory_service": "not serving"}
        assert response.json()["metadata"] == {"dependencies": states}
        assert (await anonymous.get("/healthz")) == {"status": "alive"}
    await system.wait_until_ready()


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("user_service", "ecommerce.user.v1.UserService"),
        ("inventory_service", "ecommerce.inventory.v1.InventoryService"),
        ("order_service", "ecommerce.order.v1.OrderService"),
        ("producer_service", "ecommerce.producer.v1.ProducerService"),
        ("consumer_service", health.SERVICE_NAME),
    ],
)
def test_a_service_describes_itself_by_reflection(system: System, service: str, name: str) -> None:
    with grpc.insecure_channel(system.address(service)) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        assert {name, health.SERVICE_NAME} <= set(described.get_services())
        file = described.FindFileContainingSymbol(name)
    assert name.rpartition(".")[2] in [each.name for each in file.service]


async def test_metrics_count_requests_by_route(anonymous: ApiClient) -> None:
    series = (
        'http_request_seconds_count{method="GET",route="/v1/products/{product_id}",status="200"}'
    )

    async def counted() -> float:
        response = await anonymous.call("GET", "/metrics")
        assert response.headers["Content-Type"].startswith("text/plain")
        found = re.search(re.escape(series) + r" ([0-9.]+)", response.text)
        return float(found[1]) if found else 0.0

    before = await counted()
    await anonymous.get("/v1/products/1")
    await anonymous.get("/v1/products/2")
    assert await counted() == before + 2


async def test_metrics_are_hidden_from_requests_through_a_proxy(anonymous: ApiClient) -> None:
    response = await anonymous.call("GET", "/metrics", headers={"X-Forwarded-For": "198.51.100.7"})
    assert problem(response) == (404, "not_found")


async def test_the_api_document_is_valid_openapi(anonymous: ApiClient) -> None:
    document = await anonymous.get("/openapi.json")
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


class _Links(HTMLParser):
    """The URLs that a browser fetches for a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


async def test_the_documentation_page_loads_nothing_from_other_hosts(anonymous: ApiClient) -> None:
    page = await anonymous.call("GET", "/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"https?:|//", page.text)
    links = _Links(page.text).found
    assert {urlsplit(link).path.rpartition(".")[2] for link in links} >= {"js", "css"}
    for link in links:
        assert link.startswith("/")
        asset = await anonymous.call("GET", link)
        assert asset.status_code == 200
        assert asset.content
        assert "@import" not in asset.text[:1000]
    script = await anonymous.call("GET", "/docs/start.js")
    assert '"/openapi.json"' in script.text
    assert not re.search(r"https?://", script.text)


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/products", "/v1/nothing", "/v1/users/me", "/openapi.json", "/metrics"]
)
async def test_every_response_has_a_request_id_and_security_headers(
    anonymous: ApiClient, path: str
) -> None:
    response = await anonymous.call("GET", path)
    assert response.headers["X-Request-Id"]
    assert {name: response.headers[name] for name in COMMON_HEADERS} == COMMON_HEADERS
    head = await anonymous.call("HEAD", path)
    assert (head.status_code, head.content) == (response.status_code, b"")


async def test_a_request_id_reaches_every_service_and_event(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    name = f"system-test-{product}"
    body = {"items": [{"product_id": product, "quantity": 1}]}
    response = await customer.call(
        "POST", "/v1/orders", body, {"X-Request-Id": name, "Prefer": WAIT}
    )
    assert response.headers["X-Request-Id"] == name
    order = response.json()

    async def logged() -> set[str]:
        services = ("api_gateway", "order_service", "consumer_service")
        return {service for service in services if name in system.log(service)}

    await eventually(logged, lambda found: len(found) == 3, within=5)
    for message in await queues.audited_events(
        system, order["id"], "order.created", "order.confirmed"
    ):
        assert message["properties"]["headers"]["x-request-id"] == name


async def test_a_clients_trace_reaches_every_event(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"items": [{"product_id": await admin.create_product(), "quantity": 1}]}
    headers = {"Traceparent": f"00-{trace}-00f067aa0ba902b7-01", "Prefer": WAIT}
    order = (await customer.call("POST", "/v1/orders", body, headers)).json()
    for message in await queues.audited_events(
        system, order["id"], "order.created", "order.confirmed"
    ):
        assert message["properties"]["headers"]["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "<script>"])
async def test_an_unsafe_request_id_is_replaced(anonymous: ApiClient, given: str) -> None:
    response = await anonymous.call("GET", "/healthz", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])


async def test_logs_are_json_lines_with_service_request_and_status(
    system: System, anonymous: ApiClient
) -> None:
    response = await anonymous.call("GET", "/v1/products/1")
    name = response.headers["X-Request-Id"]

    async def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in system.log("api_gateway").splitlines() if name in line]

    (line,) = await eventually(lines)
    assert (line["service"], line["event"], line["level"]) == ("api_gateway", "request", "info")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/products/1", 200)
    assert line["request_id"] == name
    for service in (*DEPENDENCIES, "producer_service", "consumer_service", "api_gateway"):
        for text in system.log(service).splitlines():
            assert json.loads(text)["service"] == service


async def test_the_broker_has_the_queues_with_their_limits(system: System) -> None:
    async with system.broker.management() as api:
        found = (await api.get("/api/queues/%2F")).raise_for_status().json()
    queues_by_name = {queue["name"]: queue for queue in found}
    assert queues_by_name.keys() == {
        "inventory.order-events",
        "inventory.order-events.dead",
        "order.events.audit",
    }
    assert queues_by_name["inventory.order-events"]["type"] == "quorum"
    assert queues_by_name["order.events.audit"]["arguments"]["x-max-length"] == 10_000


async def test_a_malformed_request_gets_a_problem_without_a_stack_trace(system: System) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"{system.gateway_url}/%", headers={"Host": "a b"})
    assert response.status_code in (400, 404)
    assert problem(response)
