"""Access tokens: JWTs that are valid for 15 minutes."""

import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service_kit.errors import Unauthenticated

LIFETIME_SECONDS = 900
MIN_SECRET_BYTES = 32
CACHE_SIZE = 10_000
ISSUER, AUDIENCE = "ecommerce", "ecommerce-api"
ADMIN, CUSTOMER = "admin", "customer"

_REQUIRED_CLAIMS = ["iss", "aud", "sub", "iat", "exp", "jti", "role"]
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a token when it was issued; an administrator may have lost the role since."""

    user_id: int
    claims_admin: bool


ANONYMOUS = Principal(0, claims_admin=False)
"""The principal of a request that needs no token."""


class AccessTokens:
    """Issues and verifies access tokens with one algorithm: HS256, or EdDSA if there is a key.

    Verified tokens are cached until they expire: verifying costs half of a cheap request.
    """

    def __init__(self, secret: str, private_key_pem: str = "") -> None:
        if private_key_pem:
            key = load_private_key(private_key_pem)
            self._algorithm = "EdDSA"
            self._signing_key: Any = key
            self._verifying_key: Any = key.public_key()
        else:
            self._algorithm = "HS256"
            self._signing_key = self._verifying_key = secret
        self._verified: dict[str, tuple[Principal, float]] = {}

    def issue(self, user_id: int, role: str) -> str:
        """A token for this user that expires after LIFETIME_SECONDS."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "jti": secrets.token_hex(16),
            "role": role,
        }
        return jwt.encode(claims, self._signing_key, algorithm=self._algorithm)

    def verify(self, token: str) -> Principal:
        """The owner of the token; Unauthenticated unless this system issued it and it is valid."""
        cached = self._verified.get(token)
        if cached is not None and time.time() < cached[1]:
            return cached[0]
        claims = self._decode(token)
        principal = Principal(int(claims["sub"]), claims["role"] == ADMIN)
        if len(self._verified) >= CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = principal, float(claims["exp"])
        return principal

    def _decode(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._verifying_key,
                algorithms=[self._algorithm],
                issuer=ISSUER,
                audience=AUDIENCE,
                # `iat` is required but not compared: replicas' clocks may differ a little.
                options={"require": _REQUIRED_CLAIMS, "verify_iat": False},
            )
        # ValueError: bytes that are not text reach PyJWT as lone surrogates.
        except (jwt.InvalidTokenError, ValueError) as error:
            raise _invalid_token() from error
        subject = claims["sub"]
        valid_id = re.fullmatch(r"[1-9][0-9]{0,18}", subject) and int(subject) <= _MAX_ID
        if not valid_id or claims["role"] not in (ADMIN, CUSTOMER):
            raise _invalid_token()
        return claims


def load_private_key(pem: str) -> Ed25519PrivateKey:
    r"""The Ed25519 key in `pem` (line breaks may be written as \n); ValueError if it is another."""
    try:
        key = load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("must be a PEM private key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("must be an Ed25519 key")  # noqa: TRY004 - for pydantic
    return key


def _invalid_token() -> Unauthenticated:
    return Unauthenticated("INVALID_TOKEN", "The access token is invalid or has expired.")
