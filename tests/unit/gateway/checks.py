"""What the tests expect of every response, and requests that no HTTP client would send."""

import asyncio

import httpx
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from api_gateway.openapi import describe
from api_gateway.routes import API_ROUTES
from tests.unit.gateway.backend import Shop

_REGISTRY = Registry().with_resource(
    "urn:api",
    Resource.from_contents(describe(API_ROUTES), default_specification=DRAFT202012),
)


def assert_json(response: httpx.Response, status: int, schema: str) -> dict[str, object]:
    """The response's JSON, after checking its status, headers and documented schema."""
    assert response.status_code == status, response.text
    content_type = "application/problem+json" if schema == "ProblemDocument" else "application/json"
    assert response.headers["Content-Type"] == content_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-Id"]
    body: dict[str, object] = response.json()
    reference = {"$ref": f"urn:api#/components/schemas/{schema}"}
    OAS31Validator(reference, registry=_REGISTRY).validate(body)
    return body


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The problem document, after checking its status and code."""
    body = assert_json(response, status, "ProblemDocument")
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
