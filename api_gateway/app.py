"""The aiohttp application: every request passes `_edge`, then its route's endpoint."""

import http
import re
import time
from collections.abc import Callable, Mapping, Sequence

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import Histogram

from api_gateway import problems
from api_gateway.gateway import Gateway
from api_gateway.problems import Problem
from api_gateway.replies import empty_reply
from api_gateway.routes import ROUTES
from api_gateway.routing import MAX_BODY_BYTES, Handler, endpoint
from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext, bound, new_traceparent
from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

_SECONDS = Histogram(
    "http_request_seconds",
    "Time to answer an HTTP request",
    ("method", "route", "status"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CORS_ANSWERS = {
    "Access-Control-Expose-Headers": "Location, Preference-Applied, Retry-After, X-Request-Id",
    "Vary": "Origin",
}
_CORS_PREFLIGHTS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Prefer, "
    "X-Request-Id, Traceparent",
    "Access-Control-Max-Age": "600",
}


def build(gateway: Gateway) -> web.Application:
    """The application that serves ROUTES through `gateway`."""
    app = web.Application(middlewares=[_edge(gateway)], client_max_size=MAX_BODY_BYTES)
    for route in ROUTES:
        handler = endpoint(gateway, route)
        app.router.add_route(route.method, route.path, handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, handler)
    return app


def _edge(gateway: Gateway) -> Middleware:
    """Everything that all requests share, in one middleware because each layer costs time.

    Gives the request its context, turns errors into problems, adds the headers of every answer,
    measures, and writes the one line of the access log.
    """
    origins, stopping = gateway.settings.cors_allowed_origins, gateway.stopping
    measure = _measure()

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        caller = caller_context(request.headers)
        with bound(caller):
            failure: Exception | None = None
            try:
                response = await handler(request)
            except Exception as error:  # noqa: BLE001 - every error gets an answer here
                failure = error
                response = _answer_to(error, request, caller.request_id)
            headers = response.headers
            headers["X-Request-Id"] = caller.request_id
            if origins:
                headers.update(_cors(request, headers, origins))
            if stopping.is_set():
                response.force_close()
            seconds = time.perf_counter() - started
            measure(request, response.status, seconds)
            _log(request, response.status, seconds, failure)
        return response

    return edge


def caller_context(headers: Mapping[str, str]) -> CallContext:
    """The request id and trace the client sent, if they are sane; else a new trace and its id."""
    traceparent = headers.get(TRACEPARENT, "")
    if not _TRACEPARENT.fullmatch(traceparent):
        traceparent = new_traceparent()
    request_id = headers.get(REQUEST_ID, "")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = traceparent[3:35]
    return CallContext(request_id, traceparent)


def _answer_to(error: Exception, request: web.Request, request_id: str) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed) and request.method == "OPTIONS":
        return empty_reply({"Allow": error.headers["Allow"]})
    if isinstance(error, web.HTTPException):
        problem = problems.of_http_error(error)
    elif isinstance(error, ServiceError):
        problem = problems.of_service_error(error)
    elif isinstance(error, Problem):
        problem = error
    else:
        problem = Problem("internal")
    return problems.reply(problem, request_id)


def _cors(
    request: web.Request, answer: Mapping[str, str], origins: Sequence[str]
) -> dict[str, str]:
    """The headers by which a browser lets a page of an allowed origin read the answer."""
    origin = request.headers.get("Origin")
    if origin is None or not (origin in origins or "*" in origins):
        return {"Vary": "Origin"}
    allowed = "*" if "*" in origins else origin
    headers = {"Access-Control-Allow-Origin": allowed, **_CORS_ANSWERS}
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        headers |= _CORS_PREFLIGHTS
        headers["Access-Control-Allow-Methods"] = answer.get("Allow", "")
    return headers


def _measure() -> Callable[[web.Request, int, float], None]:
    children: dict[tuple[str, str, int], Histogram] = {}

    def measure(request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        # What no route serves is one series, or clients could make up any number of them.
        key = (request.method, resource.canonical, status) if resource else ("", "", status)
        child = children.get(key)
        if child is None:
            child = children[key] = _SECONDS.labels(*key)
        child.observe(seconds)

    return measure


def _log(request: web.Request, status: int, seconds: float, failure: Exception | None) -> None:
    fields = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "ms": round(seconds * 1000, 2),
        "client": request.remote,
    }
    if status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        log.info("request", **fields)
    elif isinstance(failure, ServiceError):
        log.warning("request", reason=failure.reason, error=failure.message, **fields)
    elif isinstance(failure, Problem):
        log.warning("request", reason=failure.code, **fields)
    else:
        log.error("request", exc_info=failure, **fields)
