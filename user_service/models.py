"""Tables of accounts and refresh tokens, and the rules of e-mail addresses, names and tokens."""

import datetime as dt
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
    Uuid,
    func,
    true,
)

from service_kit.errors import InvalidArgument
from service_kit.text import canonical

MAX_EMAIL = 254
MAX_NAME = 100

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class Role(StrEnum):
    """What an account may do."""

    CUSTOMER = "CUSTOMER"
    ADMIN = "ADMIN"


class UserColumns(TypedColumns):
    """An account; `email` is in its canonical form, which makes it unique regardless of case."""

    id: Named[int] = Column(BigInteger, Identity(), primary_key=True)
    email: Named[str] = Column(String(MAX_EMAIL))
    name: Named[str] = Column(String(MAX_NAME))
    role: Named[str] = Column(Text)
    active: Named[bool] = Column(Boolean, server_default=true())
    password_hash: Named[str] = Column(Text)
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


class RefreshTokenColumns(TypedColumns):
    """A refresh token, known by its SHA-256 alone; a family descends from one login."""

    token_hash: Named[bytes] = Column(LargeBinary, primary_key=True)
    family_id: Named[uuid.UUID] = Column(Uuid)
    user_id: Named[int] = Column(BigInteger, ForeignKey("users.id"))
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())
    expires_at: Named[dt.datetime] = Column(DateTime(timezone=True))
    used_at: Named[dt.datetime | None] = Column(DateTime(timezone=True))
    revoked_at: Named[dt.datetime | None] = Column(DateTime(timezone=True))


users = Table(
    "users",
    metadata,
    UserColumns,
    UniqueConstraint("email"),
    CheckConstraint("role IN ('CUSTOMER', 'ADMIN')", name="role_known"),
)
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    RefreshTokenColumns,
    Index(None, "expires_at"),
    Index(None, "family_id"),
    # A family has one token that may still be exchanged; all others were.
    Index(
        "uq_refresh_tokens_family_id_unused",
        "family_id",
        unique=True,
        postgresql_where="used_at IS NULL",
    ),
)


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
    def of(cls, row: Sequence[Any]) -> "User":
        """The account in a row of the USER_COLUMNS."""
        # By position: by name it takes twice as long, and orders ask for users by the thousand.
        user_id, email, name, role, active, created_at = row
        return cls(user_id, email, name, Role(role), active, created_at)


USER_COLUMNS = tuple(users.c[field.name] for field in fields(User))


@dataclass(frozen=True, slots=True)
class Session:
    """What a login or a rotation hands out; the token is known to nobody else."""

    user: User
    refresh_token: str
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What is known of a token that was presented."""

    family_id: uuid.UUID
    used: bool
    revoked: bool
    expired: bool

    @property
    def is_exchangeable(self) -> bool:
        """Whether it can be exchanged for its successor."""
        return not (self.used or self.revoked or self.expired)


def canonical_email(text: str) -> str | None:
    """The form in which an address is stored and compared; None if it is not an address."""
    address = text.strip()
    if len(address) > MAX_EMAIL:
        return None
    address = canonical(address)
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
    """The canonical form of an address; InvalidArgument if it is not one."""
    address = canonical_email(text)
    if address is None:
        raise InvalidArgument("INVALID_EMAIL", "this is not an e-mail address", field="email")
    return address


def valid_name(text: str) -> str:
    """A person's name without spaces around it; InvalidArgument if it cannot be one."""
    name = text.strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidArgument(
            "INVALID_NAME", f"a name has 1 to {MAX_NAME} characters", field="name"
        )
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        raise InvalidArgument("INVALID_NAME", "a name has no control characters", field="name")
    return name
