"""The one table from errors to HTTP answers (RFC 9457 problem details)."""

import http
import re
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web

from api_gateway.answers import Fault, ProblemDocument
from api_gateway.money import to_text
from api_gateway.replies import BASE_HEADERS
from service_kit.errors import Code, ServiceError

KINDS: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not JSON."),
    "bad_request": (400, "The request is not valid HTTP."),
    "unauthenticated": (401, "There is no access token, or it is not valid."),
    "invalid_credentials": (401, "The e-mail or the password is wrong."),
    "invalid_refresh_token": (401, "The refresh token is unknown, spent or revoked."),
    "forbidden": (403, "The caller may not do this."),
    "not_found": (404, "There is no such thing, for this caller."),
    "method_not_allowed": (405, "The path does not serve this method."),
    "request_timeout": (408, "The body did not arrive in time."),
    "email_taken": (409, "There is an account with this e-mail."),
    "product_exists": (409, "There is a product with this id."),
    "insufficient_stock": (409, "The stock does not cover it."),
    "price_changed": (409, "A price is not the one given."),
    "idempotency_key_reused": (409, "The key was used with another request."),
    "not_cancellable": (409, "The order's status does not allow it."),
    "conflict": (409, "The current state does not allow it."),
    "body_too_large": (413, "The body is larger than 1 MiB."),
    "unsupported_encoding": (415, "The body has a Content-Encoding."),
    "invalid_body": (422, "The body does not fit; `errors` says where."),
    "invalid_parameter": (422, "A parameter or header does not fit; `errors` says which."),
    "invalid_page_token": (422, "The page token is not one this list gave out."),
    "unknown_product": (422, "A product does not exist."),
    "rate_limited": (429, "Too many tries; come back after Retry-After seconds."),
    "internal": (500, "Something is broken; the logs know more under this request id."),
    "unavailable": (503, "A service that this needs is away; try again."),
    "not_ready": (503, "The gateway cannot serve requests; `metadata` says why."),
    "overloaded": (503, "Too many requests are waiting; try again."),
    "timeout": (504, "No answer in time; it is not known whether the request took effect."),
}
"""Code -> HTTP status and meaning. A service's reason that is a code in capitals becomes it."""

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
"""What becomes of a reason that has no code of its own; all others are `internal`."""

_BY_HTTP_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

RETRY_AFTER_SECONDS = "1"
_MAY_BE_TRIED_AGAIN = (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.GATEWAY_TIMEOUT)
_TYPE = "application/problem+json"
_CHALLENGE = 'Bearer realm="ecommerce"'


class Problem(Exception):
    """A request answered with a problem: a code of KINDS, and what there is to say about it."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        metadata: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Without a detail the code's meaning is told."""
        self.code = code
        self.status, meaning = KINDS[code]
        self.detail = detail or meaning
        super().__init__(self.detail)
        self.errors = errors
        self.metadata = metadata
        self.headers = dict(headers or {})
        if self.status == http.HTTPStatus.UNAUTHORIZED:
            self.headers.setdefault("WWW-Authenticate", _CHALLENGE)
        if self.status in _MAY_BE_TRIED_AGAIN:
            self.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)


def of_service_error(error: ServiceError) -> Problem:
    """The problem a service's refusal or failure is to an HTTP client.

    The words of a failure (5xx) stay inside: they may tell of addresses and parts.
    """
    code = error.reason.lower()
    if code not in KINDS:
        code = _BY_CANONICAL_CODE.get(error.code, "internal")
    if KINDS[code][0] >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem(code)
    if code == "invalid_body":
        field = error.metadata.get("field", "").removesuffix("_cents")
        fault = Fault(pointer=f"/{field}" if field else "", detail=error.message)
        return Problem(code, errors=[fault])
    metadata = dict(_plain(key, value) for key, value in error.metadata.items())
    return Problem(code, error.message, metadata=metadata)


def of_bad_token(detail: str) -> Problem:
    """The refusal of a token that is there but not valid (RFC 6750, section 3)."""
    challenge = f'{_CHALLENGE}, error="invalid_token", error_description="{detail}"'
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def of_http_error(error: web.HTTPException) -> Problem:
    """The problem behind an answer that aiohttp gives itself: no such path or method, too large."""
    code = _BY_HTTP_STATUS.get(error.status, "bad_request")
    return Problem(
        code, headers={key: value for key, value in error.headers.items() if key == "Allow"}
    )


def reply(problem: Problem, request_id: str) -> web.Response:
    """The problem as an HTTP response."""
    document = ProblemDocument(
        type="about:blank",
        title=http.HTTPStatus(problem.status).phrase,
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
        "Content-Type": _TYPE,
        "X-Request-Id": request_id,
        **problem.headers,
    }
    return web.Response(status=problem.status, body=orjson.dumps(document), headers=headers)


def _plain(key: str, value: str) -> tuple[str, object]:
    """Metadata travel as strings; whole numbers are shown as such, and cents as money."""
    if not re.fullmatch(r"[0-9]{1,18}", value):
        return key, value
    if key.endswith("_cents"):
        return key.removesuffix("_cents"), to_text(int(value))
    return key, int(value)
