"""A route, and what runs before its handler: authentication, authorization and validation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from api_gateway.access_tokens import ANONYMOUS, AccessTokens, Principal
from api_gateway.context import Gateway, RequestContext
from api_gateway.problems import Problem, from_invalid_token
from api_gateway.schemas.responses import FieldError
from service_kit.errors import Unauthenticated

MAX_BODY_BYTES = 1024 * 1024
MAX_FIELD_ERRORS = 100

Input = TypeVar("Input", bound=BaseModel)
Handler = Callable[[RequestContext], Awaitable[web.StreamResponse]]
InputHandler = Callable[[RequestContext, Input], Awaitable[web.StreamResponse]]
"""A handler that also takes the validated body or query of the request."""
WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""What aiohttp calls."""


class Access(Enum):
    """Who may call: anyone, users with an access token, or administrators."""

    ANYONE = auto()
    USER = auto()
    ADMIN = auto()


@dataclass(frozen=True, slots=True)
class Operation:
    """A handler and its input: `run` validates the body or query, then calls the handler.

    `summary` and `tag` are for the OpenAPI document.
    """

    run: Handler
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None


def without_input(handler: Handler) -> Operation:
    """The operation of a handler that reads no body and no query."""
    return Operation(handler, *_description(handler))


def with_body(handler: InputHandler[Input], model: type[Input]) -> Operation:
    """The operation of a handler that takes a JSON body."""

    async def run(context: RequestContext) -> web.StreamResponse:
        data = await _read_json(context.request, context.gateway.settings.http_body_seconds)
        return await handler(context, validate(model, data, "invalid_body"))

    return Operation(run, *_description(handler), body=model)


def with_query(handler: InputHandler[Input], model: type[Input]) -> Operation:
    """The operation of a handler that takes query parameters."""

    def run(context: RequestContext) -> Awaitable[web.StreamResponse]:
        query = validate(model, dict(context.request.query), "invalid_parameter")
        return handler(context, query)

    return Operation(run, *_description(handler), query=model)


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """A header that an operation reads, as OpenAPI describes it."""

    name: str
    description: str
    pattern: str = ""
    example: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, the operation that serves them, and its contract.

    `response` is the type of the JSON returned with `status`. `problems` are the codes that the
    operation may return in addition to those that follow from the other fields.
    `calls_services` says whether it needs the services behind the gateway.
    """

    method: str
    path: str
    operation: Operation
    response: type[Any] | None = None
    status: int = 200
    access: Access = Access.ANYONE
    problems: tuple[str, ...] = ()
    request_headers: tuple[RequestHeader, ...] = ()
    response_headers: Mapping[str, str] = field(default_factory=dict)
    calls_services: bool = True


def endpoint(gateway: Gateway, route: Route) -> WebHandler:
    """The aiohttp handler of a route: checks for 401 before 403, and both before 400 and 422."""
    run, access = route.operation.run, route.access

    async def handle(request: web.Request) -> web.StreamResponse:
        anyone = access is Access.ANYONE
        principal = ANONYMOUS if anyone else _authenticate(gateway.access_tokens, request)
        context = RequestContext(gateway, request, principal)
        if access is Access.ADMIN:
            await context.require_admin()
        return await run(context)

    return handle


def validate(model: type[Input], data: object, code: str) -> Input:
    """`data` as the model; otherwise a problem with this code that locates each error."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise Problem(
            code,
            errors=[
                FieldError(pointer=_pointer(one["loc"]), detail=_detail(one["type"], one["msg"]))
                for one in found[:MAX_FIELD_ERRORS]
            ],
        ) from None


def _authenticate(access_tokens: AccessTokens, request: web.Request) -> Principal:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Problem("unauthenticated")
    try:
        return access_tokens.verify(token.strip())
    except Unauthenticated as error:
        raise from_invalid_token(error.message) from error


async def _read_json(request: web.Request, deadline_seconds: float) -> object:
    """The parsed body; its Content-Type does not matter."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise Problem("body_too_large")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported_encoding")
    try:
        if request.content.is_eof():
            body = await request.read()
        else:
            async with asyncio.timeout(deadline_seconds):
                body = await request.read()
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("invalid_json", f"The body is not valid JSON: {error}.") from error
    except TimeoutError as error:
        raise Problem("request_timeout", headers={"Connection": "close"}) from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Problem("bad_request") from error


def _pointer(location: tuple[int | str, ...]) -> str:
    """The location as a JSON pointer (RFC 6901)."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "".join(f"/{part}" for part in parts)


def _detail(error_type: str, message: str) -> str:
    if error_type == "model_type":
        return "must be a JSON object"
    if error_type == "string_pattern_mismatch":
        return "has an invalid format"
    if error_type == "missing":
        return "is required"
    for prefix in ("Value error, ", "Input ", "String ", "List "):
        message = message.removeprefix(prefix)
    return message.replace("should", "must")


def _description(handler: Callable[..., object]) -> tuple[str, str]:
    """A handler's summary (the first line of its docstring) and tag (the name of its module)."""
    summary = (handler.__doc__ or "").partition("\n")[0].removesuffix(".")
    return summary, handler.__module__.rpartition(".")[2]
