"""The OpenAPI document is valid and complete, and agrees with the contract."""

import re
import tomllib

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api_gateway.endpoints import Access, Route
from api_gateway.openapi import describe
from api_gateway.problems import PROBLEM_TYPES
from api_gateway.routes import API_ROUTES, ROUTES
from tests.support.infrastructure import CHECKOUT

DOCUMENT = orjson.loads(orjson.dumps(describe(API_ROUTES)))
STATIC = CHECKOUT / "api_gateway" / "static"

CONTRACT = {
    ("POST", "/v1/auth/register"): (Access.ANYONE, 201),
    ("POST", "/v1/auth/login"): (Access.ANYONE, 200),
    ("POST", "/v1/auth/refresh"): (Access.ANYONE, 200),
    ("POST", "/v1/auth/logout"): (Access.ANYONE, 204),
    ("GET", "/v1/users/me"): (Access.USER, 200),
    ("GET", "/v1/products"): (Access.ANYONE, 200),
    ("GET", "/v1/products/{product_id}"): (Access.ANYONE, 200),
    ("POST", "/v1/products"): (Access.ADMIN, 201),
    ("PATCH", "/v1/products/{product_id}"): (Access.ADMIN, 200),
    ("POST", "/v1/products/{product_id}/stock-adjustments"): (Access.ADMIN, 201),
    ("GET", "/v1/products/{product_id}/stock-movements"): (Access.ADMIN, 200),
    ("POST", "/v1/orders"): (Access.USER, 201),
    ("GET", "/v1/orders"): (Access.USER, 200),
    ("GET", "/v1/orders/{order_id}"): (Access.USER, 200),
    ("POST", "/v1/orders/{order_id}/cancel"): (Access.USER, 200),
    ("POST", "/register"): (Access.ANYONE, 201),
    ("POST", "/login"): (Access.ANYONE, 200),
    ("POST", "/check_stock"): (Access.ANYONE, 200),
    ("POST", "/update_stock"): (Access.ADMIN, 200),
    ("POST", "/create_order"): (Access.USER, 201),
    ("GET", "/healthz"): (Access.ANYONE, 200),
    ("GET", "/readyz"): (Access.ANYONE, 200),
    ("GET", "/metrics"): (Access.ANYONE, 200),
    ("GET", "/openapi.json"): (Access.ANYONE, 200),
    ("GET", "/docs"): (Access.ANYONE, 200),
    ("GET", "/docs/{name}"): (Access.ANYONE, 200),
}


def test_the_documents_version_is_that_of_the_project() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["version"] == project["version"]


def test_the_routes_are_those_of_the_contract() -> None:
    assert {(r.method, r.path): (r.access, r.status) for r in ROUTES} == CONTRACT


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


@pytest.mark.parametrize("route", API_ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_operation_documents_its_access_and_its_responses(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    responses = operation["responses"]
    assert str(route.status) in responses
    assert "500" in responses
    protected = route.access is not Access.ANYONE
    logs_in = "/auth/" in route.path or route.path == "/login"
    assert ("401" in responses) == protected or logs_in
    assert ("security" in operation) == protected
    for status, response in responses.items():
        if status >= "400":
            assert "application/problem+json" in response["content"]
            codes = re.findall(r"`(\w+)`:", response["description"])
            assert codes
            assert all(PROBLEM_TYPES[code].status == int(status) for code in codes)
            assert ("Retry-After" in response["headers"]) == (status in ("429", "503", "504"))
    assert operation["summary"]


def test_operation_ids_are_unique() -> None:
    names = [
        operation["operationId"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    ]
    assert len(names) == len(set(names)) == len(API_ROUTES)


def test_the_documentation_page_names_no_other_host() -> None:
    for name in ("docs.html", "start.js"):
        assert "//" not in (STATIC / name).read_text().replace("// no outside host", "")
    assert {path.name for path in STATIC.iterdir()} >= {"swagger-ui-bundle.js", "LICENSE", "NOTICE"}
    assert not list(STATIC.glob("*.map"))
