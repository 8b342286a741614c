"""The tables of accounts and refresh tokens."""

import datetime as dt
import uuid

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
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
    Uuid,
    func,
    text,
    true,
)

from service_kit.postgres import schema
from user_service.domain import MAX_EMAIL, MAX_NAME

metadata = schema.metadata()


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
    # A family has one token that can still be exchanged; all others were.
    Index(
        "uq_refresh_tokens_family_id_unused",
        "family_id",
        unique=True,
        postgresql_where=text("used_at IS NULL"),
    ),
)
