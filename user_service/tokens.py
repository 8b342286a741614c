"""Refresh tokens in the database: 256 random bits outside, their SHA-256 inside.

Whoever reads a token to change its family holds the lock of its owner's row (`lock_owner`), so
that a family changes in one transaction at a time.
"""

import hashlib
import secrets
import uuid
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from user_service.models import USER_COLUMNS, RefreshToken, Session, User, refresh_tokens, users

_PRUNED_AT_ONCE = 20


async def lock_owner(connection: AsyncConnection, token: str) -> User | None:
    """Lock the account that a token belongs to; None for an unknown token."""
    owner = select(refresh_tokens.c.user_id).where(_is(token)).scalar_subquery()
    # Not FOR UPDATE: that would also wait for logins, which refer to the account's row.
    locked = select(*USER_COLUMNS).where(users.c.id == owner).with_for_update(key_share=True)
    row = (await connection.execute(locked)).one_or_none()
    return None if row is None else User.of(row)


async def find(connection: AsyncConnection, token: str) -> RefreshToken | None:
    """What is stored of a token."""
    table = refresh_tokens.c
    statement = select(
        table.family_id,
        table.used_at.is_not(None).label("used"),
        table.revoked_at.is_not(None).label("revoked"),
        (table.expires_at <= func.now()).label("expired"),
    ).where(_is(token))
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else RefreshToken(*row)


async def issue(
    connection: AsyncConnection, user: User, family_id: uuid.UUID, lifetime: timedelta
) -> Session:
    """Store a new token of a family, and forget some that have expired."""
    await _prune(connection)
    token = secrets.token_urlsafe(32)
    statement = insert(refresh_tokens).values(
        token_hash=_hash(token),
        family_id=family_id,
        user_id=user.id,
        expires_at=func.now() + lifetime,
    )
    result = await connection.execute(statement.returning(refresh_tokens.c.expires_at))
    return Session(user, token, result.scalar_one())


async def mark_used(connection: AsyncConnection, token: str) -> None:
    """Record that a token was exchanged."""
    await connection.execute(update(refresh_tokens).where(_is(token)).values(used_at=func.now()))


async def revoke_family(connection: AsyncConnection, family_id: uuid.UUID) -> None:
    """Make every token of a family useless."""
    table = refresh_tokens.c
    await connection.execute(
        update(refresh_tokens)
        .where(table.family_id == family_id, table.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )


async def _prune(connection: AsyncConnection) -> None:
    # Each token that comes takes several with it, so the table keeps to what is alive. Skipping
    # what is locked means never waiting here, hence no deadlock.
    expired = (
        select(refresh_tokens.c.token_hash)
        .where(refresh_tokens.c.expires_at <= func.now())
        .order_by(refresh_tokens.c.expires_at)
        .limit(_PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.token_hash.in_(expired)))


def _is(token: str) -> ColumnElement[bool]:
    return refresh_tokens.c.token_hash == _hash(token)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
