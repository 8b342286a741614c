"""What those who run the system see: health, metrics, documentation, logs and traces."""

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

from tests.support.system import System
from tests.support.waiting import eventually
from tests.system import queues
from tests.system.shop import WAIT, Caller, problem

NEIGHBOURS = ("user_service", "inventory_service", "order_service")
EVERYWHERE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


async def test_health_and_readiness_are_told(nobody: Caller) -> None:
    assert await nobody.get("/healthz") == {"status": "alive"}
    assert await nobody.get("/readyz") == {
        "status": "ready",
        "neighbours": dict.fromkeys(NEIGHBOURS, "serving"),
    }


async def test_readiness_names_a_neighbour_that_hangs(system: System, nobody: Caller) -> None:
    async with system.paused("inventory_service"):
        answer = await nobody.call("GET", "/readyz")
        assert problem(answer) == (503, "not_ready")
        assert int(answer.headers["Retry-After"]) >= 1
        states = dict.fromkeys(NEIGHBOURS, "serving") | {"inventory_service": "not serving"}
        assert answer.json()["metadata"] == {"neighbours": states}
        assert (await nobody.get("/healthz")) == {"status": "alive"}
    await system.ready()


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


async def test_metrics_count_requests_by_route(nobody: Caller) -> None:
    series = (
        'http_request_seconds_count{method="GET",route="/v1/products/{product_id}",status="200"}'
    )

    async def counted() -> float:
        answer = await nobody.call("GET", "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        found = re.search(re.escape(series) + r" ([0-9.]+)", answer.text)
        return float(found[1]) if found else 0.0

    before = await counted()
    await nobody.get("/v1/products/1")
    await nobody.get("/v1/products/2")
    assert await counted() == before + 2


async def test_metrics_are_hidden_from_those_behind_a_proxy(nobody: Caller) -> None:
    answer = await nobody.call("GET", "/metrics", headers={"X-Forwarded-For": "198.51.100.7"})
    assert problem(answer) == (404, "not_found")


async def test_the_description_is_valid_openapi(nobody: Caller) -> None:
    document = await nobody.get("/openapi.json")
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


class _Links(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


async def test_the_documentation_page_needs_no_other_host(nobody: Caller) -> None:
    page = await nobody.call("GET", "/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"https?:|//", page.text)
    links = _Links(page.text).found
    assert {urlsplit(link).path.rpartition(".")[2] for link in links} >= {"js", "css"}
    for link in links:
        assert link.startswith("/")
        asset = await nobody.call("GET", link)
        assert asset.status_code == 200
        assert asset.content
        assert "@import" not in asset.text[:1000]
    starts = await nobody.call("GET", "/docs/start.js")
    assert '"/openapi.json"' in starts.text
    assert not re.search(r"https?://", starts.text)


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/products", "/v1/nothing", "/v1/users/me", "/openapi.json", "/metrics"]
)
async def test_every_answer_tells_its_request_and_forbids_to_guess(
    nobody: Caller, path: str
) -> None:
    answer = await nobody.call("GET", path)
    assert answer.headers["X-Request-Id"]
    assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE
    head = await nobody.call("HEAD", path)
    assert (head.status_code, head.content) == (answer.status_code, b"")


async def test_a_request_id_goes_all_the_way(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product()
    name = f"system-test-{product}"
    body = {"items": [{"product_id": product, "quantity": 1}]}
    answer = await customer.call("POST", "/v1/orders", body, {"X-Request-Id": name, "Prefer": WAIT})
    assert answer.headers["X-Request-Id"] == name
    order = answer.json()

    async def logged() -> set[str]:
        services = ("api_gateway", "order_service", "consumer_service")
        return {service for service in services if name in system.log(service)}

    await eventually(logged, lambda found: len(found) == 3, within=5)
    for message in await queues.audited(system, order["id"], "order.created", "order.confirmed"):
        assert message["properties"]["headers"]["x-request-id"] == name


async def test_a_clients_trace_goes_all_the_way(
    system: System, admin: Caller, customer: Caller
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"items": [{"product_id": await admin.product(), "quantity": 1}]}
    headers = {"Traceparent": f"00-{trace}-00f067aa0ba902b7-01", "Prefer": WAIT}
    order = (await customer.call("POST", "/v1/orders", body, headers)).json()
    for message in await queues.audited(system, order["id"], "order.created", "order.confirmed"):
        assert message["properties"]["headers"]["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "<script>"])
async def test_a_request_id_that_could_spoil_logs_is_replaced(nobody: Caller, given: str) -> None:
    answer = await nobody.call("GET", "/healthz", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


async def test_logs_are_lines_of_json_that_tell_who_asked_for_what(
    system: System, nobody: Caller
) -> None:
    answer = await nobody.call("GET", "/v1/products/1")
    name = answer.headers["X-Request-Id"]

    async def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in system.log("api_gateway").splitlines() if name in line]

    (line,) = await eventually(lines)
    assert (line["service"], line["event"], line["level"]) == ("api_gateway", "request", "info")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/products/1", 200)
    assert line["request_id"] == name
    for service in (*NEIGHBOURS, "producer_service", "consumer_service", "api_gateway"):
        for text in system.log(service).splitlines():
            assert json.loads(text)["service"] == service


async def test_the_broker_counts_what_waits_and_what_is_dead(system: System) -> None:
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


async def test_what_is_no_http_gets_an_answer_without_a_trace(system: System) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{system.gateway_url}/%", headers={"Host": "a b"})
    assert answer.status_code in (400, 404)
    assert problem(answer)
