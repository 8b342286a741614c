"""Calls without a token and with invalid tokens."""

import time

import httpx
import jwt
import pytest

from tests.support.system import System
from tests.system.refusals.checker import (
    ORDER,
    PRODUCT,
    Refusal,
    RefusalChecker,
)

PROTECTED = [
    ("GET /v1/users/me", None),
    ("POST /v1/products", PRODUCT),
    ("PATCH /v1/products/{product}", {"price": "2.00"}),
    ("POST /v1/products/{product}/stock-adjustments", {"delta": 1, "reason": "found"}),
    ("GET /v1/products/{product}/stock-movements", None),
    ("POST /v1/orders", ORDER),
    ("GET /v1/orders", None),
    ("GET /v1/orders/{own_order}", None),
    ("POST /v1/orders/{own_order}/cancel", None),
    ("POST /update_stock", {"product_id": 1, "quantity": 1}),
    ("POST /create_order", {"user_id": 1, **ORDER}),
]


@pytest.mark.parametrize(("call", "body"), PROTECTED)
async def test_calls_of_users_are_refused_without_a_token(
    refusals: RefusalChecker, call: str, body: object
) -> None:
    refusal = Refusal(call, body, 401, "unauthenticated", client="anonymous")
    response = await refusals.check(refusal)
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="ecommerce"'


def _token(secret: str, algorithm: str = "HS256", **changes: object) -> str:
    """A token as the gateway issues it for an administrator, with `changes`."""
    now = int(time.time())
    claims = {
        "iss": "ecommerce",
        "aud": "ecommerce-api",
        "sub": "1",
        "iat": now,
        "exp": now + 900,
        "jti": "system test",
        "role": "admin",
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def test_a_token_signed_in_the_tests_is_accepted_unless_it_is_changed(system: System) -> None:
    """Otherwise the next test would prove nothing."""
    token = _token(system.environment["JWT_SECRET"])
    response = httpx.get(
        f"{system.gateway_url}/v1/users/me", headers={"Authorization": f"Bearer {token}"}
    )
    assert response.status_code == 200


def _invalid_tokens(secret: str) -> dict[str, str]:
    header, claims, signature = _token(secret).split(".")
    return {
        "not a token": "nonsense",
        "two parts": f"{header}.{claims}",
        "tampered signature": f"{header}.{claims}.{signature[::-1]}",
        "of another secret": _token("another secret, as long as the real one is"),
        "expired": _token(secret, exp=int(time.time()) - 1),
        "without expiry": _token(secret, exp=None),
        "for another audience": _token(secret, aud="another-one"),
        "without audience": _token(secret, aud=None),
        "of another issuer": _token(secret, iss="another-one"),
        "unsigned": _token("", algorithm="none"),
        "of another algorithm": _token(secret * 2, algorithm="HS512"),
        "of an unknown role": _token(secret, role="root"),
        "of no user": _token(secret, sub="0"),
    }


@pytest.mark.parametrize("which", _invalid_tokens("a secret that only serves to list the cases"))
async def test_an_invalid_token_is_refused(refusals: RefusalChecker, which: str) -> None:
    token = _invalid_tokens(refusals.system.environment["JWT_SECRET"])[which]
    headers = {"Authorization": f"Bearer {token}"}
    refusal = Refusal(
        "POST /v1/products", PRODUCT, 401, "unauthenticated", client="anonymous", headers=headers
    )
    response = await refusals.check(refusal)
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


async def test_a_token_of_an_unknown_account_is_not_found(refusals: RefusalChecker) -> None:
    token = _token(refusals.system.environment["JWT_SECRET"], sub=str(2**62))
    headers = {"Authorization": f"Bearer {token}"}
    call = "GET /v1/users/me"
    await refusals.check(Refusal(call, None, 404, "not_found", client="anonymous", headers=headers))


async def test_another_authentication_scheme_is_refused(refusals: RefusalChecker) -> None:
    headers = {"Authorization": "Basic YWRhOmFkYQ=="}
    call = "GET /v1/users/me"
    await refusals.check(
        Refusal(call, None, 401, "unauthenticated", client="anonymous", headers=headers)
    )
