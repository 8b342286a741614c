"""The OpenAPI 3.1 description, made from the routes and the types they read and answer with."""

import http
import re
from collections.abc import Sequence
from inspect import getdoc
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter

from api_gateway import answers, schemas
from api_gateway.problems import KINDS
from api_gateway.routing import Access, Route

VERSION = "0.1.0"
_REF = "#/components/schemas/{model}"

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "product_id": {"type": "integer", "minimum": 1, "maximum": schemas.MAX_ID, "examples": [1]},
    "order_id": {"type": "string", "format": "uuid"},
}
_INPUT_PROBLEMS = (
    "invalid_json",
    "invalid_body",
    "request_timeout",
    "body_too_large",
    "unsupported_encoding",
    "bad_request",
)
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "How to authenticate."},
    429: {"Retry-After": "Seconds to wait."},
    503: {"Retry-After": "Seconds to wait."},
    504: {"Retry-After": "Seconds to wait."},
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
    """The codes of all problems that the route may answer with."""
    codes = [*route.problems, "internal"]
    if route.access is not Access.ANYONE:
        codes.append("unauthenticated")
    if route.access is Access.ADMIN:
        codes.append("forbidden")
    if route.accepts and route.method == "GET":
        codes.append("invalid_parameter")
    elif route.accepts:
        codes += _INPUT_PROBLEMS
    if route.neighbours:
        codes += ["unavailable", "overloaded", "timeout"]
    return sorted(set(codes), key=lambda code: (KINDS[code][0], code))


def _schemas(routes: Sequence[Route]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """A reference for each type that the routes read or answer with, and their definitions."""
    accepted = {route.accepts for route in routes if route.accepts}
    answered = {route.answer for route in routes if route.answer} | {answers.ProblemDocument}
    adapters = [
        *((model, "validation", TypeAdapter(model)) for model in accepted),
        *((answer, "serialization", TypeAdapter(answer)) for answer in answered),
    ]
    adapters.sort(key=lambda adapter: adapter[0].__name__)
    references, document = TypeAdapter.json_schemas(adapters, ref_template=_REF)  # type: ignore[arg-type]
    return {key[0]: schema for key, schema in references.items()}, document["$defs"]


def _operation(route: Route, references: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method} {route.path}").strip("_").lower(),
        "summary": (getdoc(route.handler) or "").splitlines()[0].removesuffix("."),
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "parameters": _parameters(route),
        "responses": _responses(route, references),
    }
    if route.access is not Access.ANYONE:
        operation["security"] = [{"access_token": []}]
    if route.accepts and route.method != "GET":
        content = {"application/json": {"schema": references[route.accepts]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    in_headers = [
        {"name": name, "in": "header", **description}
        for name, description in route.request_headers.items()
    ]
    return in_path + _query(route) + in_headers


def _query(route: Route) -> list[dict[str, Any]]:
    if route.accepts is None or route.method != "GET":
        return []
    properties = route.accepts.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


def _responses(route: Route, references: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": http.HTTPStatus(route.status).phrase}
    if route.answer:
        content = {"application/json": {"schema": references[route.answer]}}
        success["content"] = content
        success["headers"] = _headers(route.answer_headers)
    responses = {str(route.status): success}
    for status, codes in groupby(problems_of(route), key=lambda code: KINDS[code][0]):
        responses[str(status)] = {
            "description": " ".join(f"`{code}`: {KINDS[code][1]}" for code in codes),
            "content": {
                "application/problem+json": {"schema": references[answers.ProblemDocument]}
            },
            "headers": _headers(_PROBLEM_HEADERS.get(status, {})),
        }
    return responses


def _headers(descriptions: dict[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}, "required": True}
        for name, text in {**descriptions, "X-Request-Id": "Names the request in logs."}.items()
    }
