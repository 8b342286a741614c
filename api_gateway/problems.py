"""The one table from errors to HTTP responses (RFC 9457 problem details)."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import orjson
from aiohttp import web

from api_gateway.http import BASE_HEADERS
from api_gateway.schemas.money import format_cents
from api_gateway.schemas.responses import FieldError, ProblemDocument
from service_kit.errors import Code, ServiceError


class ProblemType(NamedTuple):
    """The HTTP status of a problem code, and its detail unless a problem has its own."""

    status: int
    detail: str


PROBLEM_TYPES = {
    "invalid_json": ProblemType(400, "The body is not valid JSON."),
    "bad_request": ProblemType(400, "The request is not valid HTTP."),
    "unauthenticated": ProblemType(401, "The access token is missing or invalid."),
    "invalid_credentials": ProblemType(401, "The e-mail or the password is wrong."),
    "invalid_refresh_token": ProblemType(401, "The refresh token is invalid or already used."),
    "forbidden": ProblemType(403, "Permission denied."),
    "not_found": ProblemType(404, "Not found."),
    "method_not_allowed": ProblemType(405, "The path does not support this method."),
    "request_timeout": ProblemType(408, "The body did not arrive in time."),
    "email_taken": ProblemType(409, "An account with this e-mail already exists."),
    "product_exists": ProblemType(409, "A product with this id already exists."),
    "insufficient_stock": ProblemType(409, "The stock does not cover the requested quantity."),
    "price_changed": ProblemType(409, "The price of a product has changed."),
    "idempotency_key_reused": ProblemType(409, "The key was used with a different request."),
    "not_cancellable": ProblemType(409, "The order's status does not allow cancelling."),
    "conflict": ProblemType(409, "The current state does not allow the request."),
    "body_too_large": ProblemType(413, "The body is larger than 1 MiB."),
    "unsupported_encoding": ProblemType(415, "The body must not have a Content-Encoding."),
    "invalid_body": ProblemType(422, "The body is invalid; see `errors`."),
    "invalid_parameter": ProblemType(422, "A parameter or header is invalid; see `errors`."),
    "invalid_page_token": ProblemType(422, "Invalid page token."),
    "unknown_product": ProblemType(422, "A product does not exist."),
    "rate_limited": ProblemType(429, "Too many attempts; try again after the time in Retry-After."),
    "internal": ProblemType(500, "Internal error. The logs have its cause under the request id."),
    "unavailable": ProblemType(503, "A required service is unavailable."),
    "not_ready": ProblemType(503, "The gateway is not ready; see `metadata`."),
    "overloaded": ProblemType(503, "Too many requests are queued; try again."),
    "timeout": ProblemType(504, "The deadline passed; the outcome is unknown."),
}
"""Problem codes. A service's reason that is a code in capitals becomes that code."""

_BY_CANONICAL_CODE = {
    Code.CANCELLED: "unavailable",
    Code.INVALID_ARGUMENT: "invalid_body",
    Code.OUT_OF_RANGE: "invalid_body",
    Code.DEADLINE_EXCEEDED: "timeout",
    Code.NOT_FOUND: "not_found",
    Code.ALREADY_EXISTS: "conflict",
    Code.FAILED_PRECONDITION: "conflict",
    Code.PERMISSION_DENIED: "forbidden",
    Code.UNAUTHENTICATED: "unauthenticated",
    Code.RESOURCE_EXHAUSTED: "overloaded",
    Code.ABORTED: "unavailable",
    Code.UNAVAILABLE: "unavailable",
}
"""For reasons without a problem code of their own; all others are `internal`."""

_BY_HTTP_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

RETRY_AFTER_SECONDS = "1"
_RETRYABLE_STATUSES = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_CONTENT_TYPE = "application/problem+json"
_CHALLENGE = 'Bearer realm="ecommerce"'


class Problem(Exception):
    """A request that ends with a problem response: a code of PROBLEM_TYPES and its details."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        metadata: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Without a detail, that of the code is used."""
        self.code = code
        self.status, default_detail = PROBLEM_TYPES[code]
        self.detail = detail or default_detail
        super().__init__(self.detail)
        self.errors = errors
        self.metadata = metadata
        self.headers = dict(headers or {})
        if self.status == HTTPStatus.UNAUTHORIZED:
            self.headers.setdefault("WWW-Authenticate", _CHALLENGE)
        if self.status in _RETRYABLE_STATUSES:
            self.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)


def from_service_error(error: ServiceError) -> Problem:
    """The problem that a service's refusal or failure is to an HTTP client.

    The message of a failure (5xx) is not passed on: it may name addresses and internals.
    """
    code = error.reason.lower()
    if code not in PROBLEM_TYPES:
        code = _BY_CANONICAL_CODE.get(error.code, "internal")
    if PROBLEM_TYPES[code].status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem(code)
    if code == "invalid_body":
        field = error.metadata.get("field", "").removesuffix("_cents")
        pointer = f"/{field}" if field else ""
        return Problem(code, errors=[FieldError(pointer=pointer, detail=error.message)])
    metadata = dict(_to_json(key, value) for key, value in error.metadata.items())
    return Problem(code, error.message, metadata=metadata)


def from_invalid_token(detail: str) -> Problem:
    """The refusal of a token that was sent but is not valid (RFC 6750, section 3)."""
    challenge = f'{_CHALLENGE}, error="invalid_token", error_description="{detail}"'
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def from_http_error(error: web.HTTPException) -> Problem:
    """The problem behind an error of aiohttp itself: unknown path, wrong method, body too large."""
    code = _BY_HTTP_STATUS.get(error.status, "bad_request")
    return Problem(
        code, headers={key: value for key, value in error.headers.items() if key == "Allow"}
    )


def problem_response(problem: Problem, request_id: str) -> web.Response:
    """The problem as an HTTP response."""
    document = ProblemDocument(
        type="about:blank",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        request_id=request_id,
    )
    if problem.errors:
        document["errors"] = list(problem.errors)
    if problem.metadata:
        document["metadata"] = dict(problem.metadata)
    headers = {
        **BASE_HEADERS,
        "Content-Type": _CONTENT_TYPE,
        "X-Request-Id": request_id,
        **problem.headers,
    }
    return web.Response(status=problem.status, body=orjson.dumps(document), headers=headers)


def _to_json(key: str, value: str) -> tuple[str, object]:
    """Metadata travel as strings: whole numbers become numbers, and cents become money."""
    if not re.fullmatch(r"[0-9]{1,18}", value):
        return key, value
    if key.endswith("_cents"):
        return key.removesuffix("_cents"), format_cents(int(value))
    return key, int(value)
