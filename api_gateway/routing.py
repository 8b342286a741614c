"""What a route is, and what happens before its handler runs: who calls, and with what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from api_gateway.answers import Fault
from api_gateway.gateway import Call, Gateway
from api_gateway.problems import Problem, of_bad_token
from api_gateway.tokens import Principal, Tokens
from service_kit.errors import Unauthenticated

MAX_BODY_BYTES = 1024 * 1024
MAX_FAULTS = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NOBODY = Principal(0, claims_admin=False)


class Access(Enum):
    """Who may call: anyone, users with an access token, or administrators."""

    ANYONE = auto()
    USER = auto()
    ADMIN = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a path and its handler, called as `handler(call)` or `handler(call, accepted)`.

    `accepts` validates the body, or the query of a GET. `problems` are the codes of KINDS that
    the operation answers beside those that follow from its other properties; `neighbours` tells
    whether it needs the services behind. The headers are described by name.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[web.StreamResponse]]
    answer: Any = None
    status: int = 200
    access: Access = Access.ANYONE
    accepts: type[BaseModel] | None = None
    problems: tuple[str, ...] = ()
    request_headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer_headers: dict[str, str] = field(default_factory=dict)
    neighbours: bool = True


def endpoint(gateway: Gateway, route: Route) -> Handler:
    """The route's handler behind its checks: 401 before 403, and both before 400 and 422."""

    async def answer(request: web.Request) -> web.StreamResponse:
        caller = _NOBODY if route.access is Access.ANYONE else _caller(gateway.tokens, request)
        call = Call(gateway, request, caller)
        if route.access is Access.ADMIN:
            await call.require_admin()
        if route.accepts is None:
            return await route.handler(call)
        if route.method == "GET":
            accepted = validated(route.accepts, dict(request.query), "invalid_parameter")
        else:
            data = await _json_of(request, gateway.settings.http_body_seconds)
            accepted = validated(route.accepts, data, "invalid_body")
        return await route.handler(call, accepted)

    return answer


def validated(model: type[BaseModel], data: object, code: str) -> BaseModel:
    """`data` as the model; a problem with this code that points at each fault otherwise."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise Problem(
            code,
            errors=[
                Fault(pointer=_pointer(fault["loc"]), detail=_words(fault["type"], fault["msg"]))
                for fault in faults[:MAX_FAULTS]
            ],
        ) from None


def _caller(tokens: Tokens, request: web.Request) -> Principal:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Problem("unauthenticated")
    try:
        return tokens.verify(token.strip())
    except Unauthenticated as error:
        raise of_bad_token(error.message) from error


async def _json_of(request: web.Request, deadline_seconds: float) -> object:
    """The body, whatever its Content-Type says; it is JSON or it is refused."""
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
        raise Problem("invalid_json", f"the body is not JSON: {error}") from error
    except TimeoutError as error:
        raise Problem("request_timeout", headers={"Connection": "close"}) from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Problem("bad_request") from error


def _pointer(location: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901)."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "".join(f"/{part}" for part in parts)


def _words(kind: str, message: str) -> str:
    if kind == "model_type":
        return "must be a JSON object"
    if kind == "string_pattern_mismatch":
        return "is not of the form that is asked for"
    return message.removeprefix("Value error, ").removeprefix("Input ")
