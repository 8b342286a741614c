"""The OpenAPI document is valid, complete, and truthful about the contract."""

import re
import tomllib
from pathlib import Path

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import api_gateway
from api_gateway.openapi import describe
from api_gateway.problems import KINDS
from api_gateway.routes import _API, ROUTES
from api_gateway.routing import Access, Route

DOCUMENT = orjson.loads(orjson.dumps(describe(_API)))
CHECKOUT = Path(__file__).parents[2]
STATIC = Path(api_gateway.__file__).parent / "static"

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


def test_its_version_is_that_of_the_project() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["version"] == project["version"]


def test_the_routes_are_those_of_the_contract() -> None:
    assert {(r.method, r.path): (r.access, r.status) for r in ROUTES} == CONTRACT


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


@pytest.mark.parametrize("route", _API, ids=lambda route: f"{route.method} {route.path}")
def test_an_operation_tells_who_may_call_it_and_how_it_answers(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    answers = operation["responses"]
    assert str(route.status) in answers
    assert "500" in answers
    protected = route.access is not Access.ANYONE
    logs_in = "/auth/" in route.path or route.path == "/login"
    assert ("401" in answers) == protected or logs_in
    assert ("security" in operation) == protected
    for status, answer in answers.items():
        if status >= "400":
            assert "application/problem+json" in answer["content"]
            codes = re.findall(r"`(\w+)`:", answer["description"])
            assert codes
            assert all(KINDS[code][0] == int(status) for code in codes)
            assert ("Retry-After" in answer["headers"]) == (status in ("429", "503", "504"))
    assert operation["summary"]


def test_operations_have_names_of_their_own() -> None:
    names = [
        operation["operationId"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    ]
    assert len(names) == len(set(names)) == len(_API)


def test_the_page_asks_no_other_host() -> None:
    for name in ("docs.html", "start.js"):
        assert "//" not in (STATIC / name).read_text().replace("// no outside host", "")
    assert {path.name for path in STATIC.iterdir()} >= {"swagger-ui-bundle.js", "LICENSE", "NOTICE"}
    assert not list(STATIC.glob("*.map"))
