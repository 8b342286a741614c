"""The aiohttp application: each request passes `request_middleware`, then its endpoint."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import Histogram

from api_gateway.context import Gateway
from api_gateway.endpoints import MAX_BODY_BYTES, WebHandler, endpoint
from api_gateway.http import empty_response
from api_gateway.problems import Problem, from_http_error, from_service_error, problem_response
from api_gateway.routes import ROUTES
from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext, bound, new_traceparent
from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

_SECONDS = Histogram(
    "http_request_seconds",
    "Duration of an HTTP request",
    ("method", "route", "status"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CORS_RESPONSE_HEADERS = {
    "Access-Control-Expose-Headers": "Location, Preference-Applied, Retry-After, X-Request-Id",
    "Vary": "Origin",
}
_CORS_PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Prefer, "
    "X-Request-Id, Traceparent",
    "Access-Control-Max-Age": "600",
}


def build(gateway: Gateway) -> web.Application:
    """The application that serves ROUTES through `gateway`."""
    app = web.Application(middlewares=[request_middleware(gateway)], client_max_size=MAX_BODY_BYTES)
    for route in ROUTES:
        handler = endpoint(gateway, route)
        app.router.add_route(route.method, route.path, handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, handler)
    return app


def request_middleware(gateway: Gateway) -> Middleware:
    """The middleware of all requests: a single one, because each layer costs time.

    Binds the request's context, turns errors into problems, adds the headers of every response,
    records the duration, and writes the one line of the access log.
    """
    origins, stopping = gateway.settings.cors_allowed_origins, gateway.stopping
    record_duration = _duration_recorder()

    @web.middleware
    async def middleware(request: web.Request, handler: WebHandler) -> web.StreamResponse:
        started = time.perf_counter()
        context = call_context(request.headers)
        with bound(context):
            failure: Exception | None = None
            try:
                response = await handler(request)
            except Exception as error:  # noqa: BLE001 - every error becomes a response here
                failure = error
                response = _error_response(error, request, context.request_id)
            headers = response.headers
            headers["X-Request-Id"] = context.request_id
            if origins:
                headers.update(_cors_headers(request, headers, origins))
            if stopping.is_set():
                response.force_close()
            seconds = time.perf_counter() - started
            record_duration(request, response.status, seconds)
            _log(request, response.status, seconds, failure)
        return response

    return middleware


def call_context(headers: Mapping[str, str]) -> CallContext:
    """The client's request id and trace if they are valid; otherwise a new trace and its id."""
    traceparent = headers.get(TRACEPARENT, "")
    if not _TRACEPARENT.fullmatch(traceparent):
        traceparent = new_traceparent()
    request_id = headers.get(REQUEST_ID, "")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = traceparent[3:35]
    return CallContext(request_id, traceparent)


def _error_response(error: Exception, request: web.Request, request_id: str) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed) and request.method == "OPTIONS":
        return empty_response({"Allow": error.headers["Allow"]})
    if isinstance(error, web.HTTPException):
        problem = from_http_error(error)
    elif isinstance(error, ServiceError):
        problem = from_service_error(error)
    elif isinstance(error, Problem):
        problem = error
    else:
        problem = Problem("internal")
    return problem_response(problem, request_id)


def _cors_headers(
    request: web.Request, response: Mapping[str, str], origins: Sequence[str]
) -> dict[str, str]:
    """The headers that let a page of an allowed origin read the response."""
    origin = request.headers.get("Origin")
    if origin is None or not (origin in origins or "*" in origins):
        return {"Vary": "Origin"}
    allowed = "*" if "*" in origins else origin
    headers = {"Access-Control-Allow-Origin": allowed, **_CORS_RESPONSE_HEADERS}
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        headers |= _CORS_PREFLIGHT_HEADERS
        headers["Access-Control-Allow-Methods"] = response.get("Allow", "")
    return headers


def _duration_recorder() -> Callable[[web.Request, int, float], None]:
    # Looking a child up by its labels costs more than observing it.
    children: dict[tuple[str, str, int], Histogram] = {}

    def record(request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        # Unknown paths share one series, or clients could create any number of them.
        key = (request.method, resource.canonical, status) if resource else ("", "", status)
        child = children.get(key)
        if child is None:
            child = children[key] = _SECONDS.labels(*key)
        child.observe(seconds)

    return record


def _log(request: web.Request, status: int, seconds: float, failure: Exception | None) -> None:
    fields = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "ms": round(seconds * 1000, 2),
        "client": request.remote,
    }
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        log.info("request", **fields)
    elif isinstance(failure, ServiceError):
        log.warning("request", reason=failure.reason, error=failure.message, **fields)
    elif isinstance(failure, Problem):
        log.warning("request", reason=failure.code, **fields)
    else:
        log.error("request", exc_info=failure, **fields)
