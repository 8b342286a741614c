"""Access tokens: only those that this system issued, and only until they expire."""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from api_gateway import access_tokens
from api_gateway.access_tokens import AccessTokens, Principal, load_private_key
from service_kit.errors import Unauthenticated

SECRET = "a secret of at least 32 bytes ....."


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def claims(**changes: object) -> dict[str, Any]:
    now = int(time.time())
    all_claims: dict[str, Any] = {
        "iss": "ecommerce",
        "aud": "ecommerce-api",
        "sub": "7",
        "iat": now,
        "exp": now + 60,
        "jti": "1",
        "role": "customer",
    }
    all_claims.update(changes)
    return {name: value for name, value in all_claims.items() if value is not None}


def signed(changes: dict[str, object], secret: str = SECRET, algorithm: str = "HS256") -> str:
    # The library would not let a test issue what an attacker would.
    return jwt.api_jws.encode(json.dumps(claims(**changes)).encode(), secret, algorithm)


@pytest.fixture(params=["HS256", "EdDSA"])
def issuer(request: pytest.FixtureRequest) -> AccessTokens:
    if request.param == "HS256":
        return AccessTokens(SECRET)
    return AccessTokens("", pem(Ed25519PrivateKey.generate()))


def test_a_token_names_its_owner(issuer: AccessTokens) -> None:
    assert issuer.verify(issuer.issue(7, "customer")) == Principal(7, claims_admin=False)
    assert issuer.verify(issuer.issue(2**63 - 1, "admin")) == Principal(
        2**63 - 1, claims_admin=True
    )


def test_a_token_is_valid_for_fifteen_minutes_and_has_a_unique_id(issuer: AccessTokens) -> None:
    first, second = (
        jwt.decode(issuer.issue(7, "customer"), options={"verify_signature": False})
        for _ in range(2)
    )
    assert first["exp"] - first["iat"] == 900
    assert first["sub"] == "7"
    assert first["jti"] != second["jti"]


def test_a_token_signed_with_another_key_is_refused(issuer: AccessTokens) -> None:
    for other in (AccessTokens("another" * 6), AccessTokens("", pem(Ed25519PrivateKey.generate()))):
        with pytest.raises(Unauthenticated):
            issuer.verify(other.issue(7, "customer"))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"iss": "another"},
        {"aud": "another"},
        {"role": "root"},
        {"role": ["admin"]},
        {"sub": "0"},
        {"sub": "-1"},
        {"sub": "07"},
        {"sub": str(2**63)},
        {"sub": "9" * 5000},
        {"sub": "x"},
        {"sub": 7},
        {"nbf": 2**40},
        *({name: None} for name in ("iss", "aud", "sub", "iat", "exp", "jti", "role")),
    ],
    ids=str,
)
def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated):
        AccessTokens(SECRET).verify(signed(changes))


def test_a_token_cannot_choose_the_algorithm() -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    confused = jwt.api_jws.encode(b"{}", public, "HS256")
    unsigned = jwt.encode(claims(role="admin"), "", "none")
    other_size = jwt.encode(claims(), SECRET * 2, "HS512")
    for token in (confused, unsigned, other_size):
        for verifier in (AccessTokens(SECRET), AccessTokens("", pem(key))):
            with pytest.raises(Unauthenticated):
                verifier.verify(token)


def test_a_changed_token_is_refused() -> None:
    verifier = AccessTokens(SECRET)
    token = verifier.issue(7, "customer")
    head, body, signature = token.split(".")
    for changed in (f"{head}.{body}.", f"{head}.{body}A.{signature}", token[:-4], token + "A"):
        with pytest.raises(Unauthenticated):
            verifier.verify(changed)


@given(st.text() | st.sampled_from(["..", "a.b.c", "\udcff.a.b", "e30.e30.e30", "W10.e30."]))
def test_text_that_is_not_a_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        AccessTokens(SECRET).verify(text)


def test_a_cached_token_is_refused_after_it_has_expired() -> None:
    verifier = AccessTokens(SECRET)
    token = signed({"exp": int(time.time()) + 2})
    assert verifier.verify(token).user_id == 7
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            verifier.verify(token)
        except Unauthenticated:
            return
        time.sleep(0.05)
    pytest.fail("an expired token was still accepted")


def test_the_cache_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_tokens, "CACHE_SIZE", 3)
    verifier = AccessTokens(SECRET)
    for user_id in range(1, 10):
        verifier.verify(verifier.issue(user_id, "customer"))
    assert len(verifier._verified) == 3


def test_a_key_may_be_written_on_one_line_and_must_be_ed25519() -> None:
    key = pem(Ed25519PrivateKey.generate())
    assert load_private_key(key.replace("\n", "\\n"))
    for wrong in ("nonsense", pem(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(ValueError, match="must be"):
            load_private_key(wrong)
