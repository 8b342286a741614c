"""Accounts and refresh tokens: the types, and the rules of e-mail addresses, names and tokens."""

import datetime as dt
import hashlib
import secrets
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service_kit.errors import InvalidArgument
from service_kit.text import normalize_text

MAX_EMAIL = 254
MAX_NAME = 100
_TOKEN_BYTES = 32


class Role(StrEnum):
    """What an account may do."""

    CUSTOMER = "CUSTOMER"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True)
class User:
    """An account as others see it."""

    id: int
    email: str
    name: str
    role: Role
    active: bool
    created_at: dt.datetime

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "User":
        """The account in a row of these fields."""
        # By position: by name it takes twice as long, and orders ask for users by the thousand.
        user_id, email, name, role, active, created_at = row
        return cls(user_id, email, name, Role(role), active, created_at)


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account, and the hash of its password."""

    user: User
    password_hash: str = field(repr=False)

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "Credentials":
        """The credentials in a row of User's fields and the hash."""
        *user, password_hash = row
        return cls(User.from_row(user), password_hash)


@dataclass(frozen=True, slots=True)
class Session:
    """What a login or a rotation returns; the token is stored nowhere."""

    user: User
    refresh_token: str = field(repr=False)
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What is stored of a refresh token."""

    family_id: uuid.UUID
    used: bool
    revoked: bool
    expired: bool

    @property
    def is_exchangeable(self) -> bool:
        """Whether it can be exchanged for its successor."""
        return not (self.used or self.revoked or self.expired)


def new_refresh_token() -> str:
    """A token of 256 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_refresh_token(token: str) -> bytes:
    """The SHA-256 under which a token is stored; 256 random bits need no salt."""
    return hashlib.sha256(token.encode()).digest()


def canonical_email(text: str) -> str | None:
    """The form in which an address is stored and compared; None if it is not an address."""
    address = text.strip()
    if len(address) > MAX_EMAIL:
        return None
    address = normalize_text(address)
    local, _, domain = address.partition("@")
    is_address = (
        local != ""
        and all(domain.split("."))
        and "@" not in domain
        and " " not in address
        and address.isprintable()
        and len(address) <= MAX_EMAIL
    )
    return address if is_address else None


def valid_email(text: str) -> str:
    """The canonical form of an address; InvalidArgument (INVALID_EMAIL) if it is not one."""
    address = canonical_email(text)
    if address is None:
        raise InvalidArgument("INVALID_EMAIL", "The e-mail address is invalid.", field="email")
    return address


def valid_name(text: str) -> str:
    """A name without spaces around it; InvalidArgument (INVALID_NAME) if it cannot be one."""
    name = text.strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise _invalid_name(f"A name must have 1 to {MAX_NAME} characters.")
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        raise _invalid_name("A name must not have control characters.")
    return name


def _invalid_name(message: str) -> InvalidArgument:
    return InvalidArgument("INVALID_NAME", message, field="name")
