"""The OpenAPI 3.1 document, generated from the routes and the types they read and return."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from api_gateway.endpoints import Access, RequestHeader, Route
from api_gateway.problems import PROBLEM_TYPES
from api_gateway.schemas.fields import MAX_ID
from api_gateway.schemas.responses import ProblemDocument

VERSION = "0.1.0"
_REF = "#/components/schemas/{model}"

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "product_id": {"type": "integer", "minimum": 1, "maximum": MAX_ID, "examples": [1]},
    "order_id": {"type": "string", "format": "uuid"},
}
_BODY_PROBLEMS = (
    "invalid_json",
    "invalid_body",
    "request_timeout",
    "body_too_large",
    "unsupported_encoding",
    "bad_request",
)
_RETRY_AFTER = {"Retry-After": "Seconds to wait before a retry."}
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "How to authenticate."},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
    504: _RETRY_AFTER,
}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    references, components = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Commerce API",
            "version": VERSION,
            "description": "Users, products and orders. Money is written as a decimal string. "
            "Errors are RFC 9457 problem details with a stable `code`.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "access_token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def problems_of(route: Route) -> list[str]:
    """The codes of all problems that the route may return."""
    codes = [*route.problems, "internal"]
    if route.access is not Access.ANYONE:
        codes.append("unauthenticated")
    if route.access is Access.ADMIN:
        codes.append("forbidden")
    if route.operation.query:
        codes.append("invalid_parameter")
    if route.operation.body:
        codes += _BODY_PROBLEMS
    if route.calls_services:
        codes += ["unavailable", "overloaded", "timeout"]
    return sorted(set(codes), key=lambda code: (PROBLEM_TYPES[code].status, code))


def _schemas(routes: Sequence[Route]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A reference to each type that the routes read or return, by its name; the definitions."""
    read = {model for route in routes if (model := route.operation.body or route.operation.query)}
    returned = {route.response for route in routes if route.response} | {ProblemDocument}
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (model.__name__, "validation" if model in read else "serialization", TypeAdapter(model))
        for model in {*read, *returned}
    ]
    adapters.sort(key=lambda adapter: adapter[0])
    references, document = TypeAdapter.json_schemas(adapters, ref_template=_REF)
    return {name: schema for (name, _), schema in references.items()}, document["$defs"]


def _operation(route: Route, references: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method} {route.path}").strip("_").lower(),
        "summary": route.operation.summary,
        "tags": [route.operation.tag],
        "parameters": _parameters(route),
        "responses": _responses(route, references),
    }
    if route.access is not Access.ANYONE:
        operation["security"] = [{"access_token": []}]
    if route.operation.body:
        content = {"application/json": {"schema": references[route.operation.body.__name__]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    in_query = _query_parameters(route.operation.query) if route.operation.query else []
    return in_path + in_query + [_header_parameter(header) for header in route.request_headers]


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    properties = model.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


def _header_parameter(header: RequestHeader) -> dict[str, Any]:
    parameter: dict[str, Any] = {
        "name": header.name,
        "in": "header",
        "description": header.description,
        "schema": {"type": "string"},
    }
    if header.pattern:
        parameter["schema"]["pattern"] = header.pattern
    if header.example:
        parameter["example"] = header.example
    return parameter


def _responses(route: Route, references: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.response:
        content = {"application/json": {"schema": references[route.response.__name__]}}
        success["content"] = content
        success["headers"] = _headers(route.response_headers)
    responses = {str(route.status): success}
    for status, codes in groupby(problems_of(route), key=lambda code: PROBLEM_TYPES[code].status):
        responses[str(status)] = {
            "description": " ".join(f"`{code}`: {PROBLEM_TYPES[code].detail}" for code in codes),
            "content": {
                "application/problem+json": {"schema": references[ProblemDocument.__name__]}
            },
            "headers": _headers(_PROBLEM_HEADERS.get(status, {})),
        }
    return responses


def _headers(descriptions: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}, "required": True}
        for name, text in {
            **descriptions,
            "X-Request-Id": "Identifies the request in the logs.",
        }.items()
    }
