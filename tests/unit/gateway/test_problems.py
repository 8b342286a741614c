"""The error table: from the errors of services to the problems of the API."""

import orjson
import pytest

from api_gateway.problems import (
    PROBLEM_TYPES,
    Problem,
    from_invalid_token,
    from_service_error,
    problem_response,
)
from service_kit.errors import (
    Aborted,
    AlreadyExists,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unauthenticated,
    Unavailable,
    error_from_code,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AlreadyExists("EMAIL_TAKEN", ""), 409, "email_taken"),
        (AlreadyExists("PRODUCT_EXISTS", ""), 409, "product_exists"),
        (Unauthenticated("INVALID_CREDENTIALS", ""), 401, "invalid_credentials"),
        (Unauthenticated("INVALID_REFRESH_TOKEN", ""), 401, "invalid_refresh_token"),
        (FailedPrecondition("INSUFFICIENT_STOCK", ""), 409, "insufficient_stock"),
        (FailedPrecondition("PRICE_CHANGED", ""), 409, "price_changed"),
        (FailedPrecondition("IDEMPOTENCY_KEY_REUSED", ""), 409, "idempotency_key_reused"),
        (FailedPrecondition("NOT_CANCELLABLE", ""), 409, "not_cancellable"),
        (InvalidArgument("UNKNOWN_PRODUCT", ""), 422, "unknown_product"),
        (InvalidArgument("INVALID_PAGE_TOKEN", ""), 422, "invalid_page_token"),
        (InvalidArgument("INVALID_NAME", ""), 422, "invalid_body"),
        (NotFound("ORDER_NOT_FOUND", ""), 404, "not_found"),
        (PermissionDenied("USER_INACTIVE", ""), 403, "forbidden"),
        (ResourceExhausted("OVERLOADED", ""), 503, "overloaded"),
        (Unavailable("DATABASE_UNAVAILABLE", ""), 503, "unavailable"),
        (Aborted("DATABASE_CONFLICT", ""), 503, "unavailable"),
        (DeadlineExceeded("DEADLINE_EXCEEDED", ""), 504, "timeout"),
        (ServiceError("ANYTHING", ""), 500, "internal"),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
def test_a_reason_has_one_status_and_one_stable_code(
    error: ServiceError, status: int, code: str
) -> None:
    problem = from_service_error(error)
    assert (problem.status, problem.code) == (status, code)


@pytest.mark.parametrize("code", Code)
def test_every_canonical_code_becomes_a_problem(code: Code) -> None:
    assert 400 <= from_service_error(error_from_code(code, "NEW_REASON", "", {})).status < 600


def test_the_message_of_a_failure_is_not_passed_on() -> None:
    problem = from_service_error(Unavailable("UNAVAILABLE", "ipv4:10.0.0.7:50051 refused", at="db"))
    document = problem_response(problem, "r1").text or ""
    assert "10.0.0.7" not in document
    assert "db" not in document
    assert problem.headers["Retry-After"] == "1"


def test_a_problem_with_an_unknown_outcome_says_when_to_retry() -> None:
    for code, (status, _) in PROBLEM_TYPES.items():
        assert ("Retry-After" in Problem(code).headers) == (status in (503, 504))


def test_a_problem_becomes_a_problem_document() -> None:
    error = FailedPrecondition(
        "PRICE_CHANGED",
        "The price of product 7 has changed.",
        product_id=7,
        unit_price_cents=50_000,
        name="x",
    )
    response = problem_response(from_service_error(error), "r1")
    assert response.content_type == "application/problem+json"
    assert orjson.loads(response.text or "") == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "The price of product 7 has changed.",
        "code": "price_changed",
        "request_id": "r1",
        "metadata": {"product_id": 7, "unit_price": "500.00", "name": "x"},
    }


def test_a_field_that_a_service_refuses_is_located() -> None:
    problem = from_service_error(InvalidArgument("INVALID_PRICE", "too much", field="price_cents"))
    assert problem.errors == [{"pointer": "/price", "detail": "too much"}]


def test_every_401_says_how_to_authenticate() -> None:
    for code, (status, _) in PROBLEM_TYPES.items():
        assert ("WWW-Authenticate" in Problem(code).headers) == (status == 401)
    assert (
        'error="invalid_token"' in from_invalid_token("It has expired.").headers["WWW-Authenticate"]
    )
