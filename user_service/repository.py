"""All SQL of accounts and refresh tokens.

Functions run in the caller's transaction. Tokens are stored as hashes. A token's family changes in
one transaction at a time: callers lock the owner's row (`lock_owner`) before they read a token.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import ARRAY, BigInteger, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from user_service.domain import Credentials, RefreshToken, Role, User
from user_service.tables import refresh_tokens, users

_USER_COLUMNS = [users.c[field.name] for field in fields(User)]
_USERS = select(*_USER_COLUMNS)
_USERS_BY_IDS = _USERS.where(users.c.id == bindparam("ids", type_=ARRAY(BigInteger)).any_())

_MAX_PRUNED = 20


async def insert_customer(
    connection: AsyncConnection, *, email: str, name: str, password_hash: str
) -> User | None:
    """Create a customer; None if the e-mail is taken."""
    statement = (
        insert(users)
        .values(email=email, name=name, role=Role.CUSTOMER, password_hash=password_hash)
        # The constraint decides between concurrent registrations. An IntegrityError would do as
        # well, but PostgreSQL would write the address to its log.
        .on_conflict_do_nothing(index_elements=[users.c.email])
        .returning(*_USER_COLUMNS)
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else User.from_row(row)


async def upsert_administrator(
    connection: AsyncConnection, *, email: str, name: str, password_hash: str
) -> int | None:
    """Create an administrator, or make the account with this e-mail one; None if it was one.

    An existing account keeps its name and password. Returns the account's id.
    """
    statement = insert(users).values(
        email=email, name=name, role=Role.ADMIN, password_hash=password_hash
    )
    statement = statement.on_conflict_do_update(
        index_elements=[users.c.email],
        set_={"role": Role.ADMIN},
        where=users.c.role != Role.ADMIN,
    )
    return await connection.scalar(statement.returning(users.c.id))


async def get_credentials(connection: AsyncConnection, email: str) -> Credentials | None:
    """The account with this e-mail in its canonical form, and its password's hash."""
    statement = select(*_USER_COLUMNS, users.c.password_hash).where(users.c.email == email)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Credentials.from_row(row)


async def replace_password_hash(
    connection: AsyncConnection, user_id: int, old: str, new: str
) -> None:
    """Store another hash of the same password; nothing if the password was changed meanwhile."""
    unchanged = (users.c.id == user_id) & (users.c.password_hash == old)
    await connection.execute(update(users).where(unchanged).values(password_hash=new))


async def get_users(connection: AsyncConnection, user_ids: Sequence[int]) -> list[User]:
    """The accounts that exist, in no order."""
    rows = await connection.execute(_USERS_BY_IDS, {"ids": user_ids})
    return [User.from_row(row) for row in rows]


async def list_users(connection: AsyncConnection, *, after: int | None, limit: int) -> list[User]:
    """Accounts by ascending id, from after an id."""
    statement = _USERS.order_by(users.c.id).limit(limit)
    if after is not None:
        statement = statement.where(users.c.id > after)
    return [User.from_row(row) for row in await connection.execute(statement)]


async def lock_owner(connection: AsyncConnection, token_hash: bytes) -> User | None:
    """Lock the account that a token belongs to; None for an unknown token."""
    owner = (
        select(refresh_tokens.c.user_id)
        .where(refresh_tokens.c.token_hash == token_hash)
        .scalar_subquery()
    )
    # Not FOR UPDATE: that would also wait for logins, which refer to the account's row.
    statement = _USERS.where(users.c.id == owner).with_for_update(key_share=True)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else User.from_row(row)


async def get_refresh_token(connection: AsyncConnection, token_hash: bytes) -> RefreshToken | None:
    """What is stored of a token; None for an unknown one."""
    columns = refresh_tokens.c
    statement = select(
        columns.family_id,
        columns.used_at.is_not(None),
        columns.revoked_at.is_not(None),
        columns.expires_at <= func.now(),
    ).where(columns.token_hash == token_hash)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else RefreshToken(*row)


async def insert_refresh_token(
    connection: AsyncConnection,
    token_hash: bytes,
    *,
    user_id: int,
    family_id: uuid.UUID,
    lifetime: dt.timedelta,
) -> dt.datetime:
    """Store a token of a family; returns when it expires."""
    statement = insert(refresh_tokens).values(
        token_hash=token_hash,
        family_id=family_id,
        user_id=user_id,
        expires_at=func.now() + lifetime,
    )
    result = await connection.execute(statement.returning(refresh_tokens.c.expires_at))
    return result.scalar_one()


async def mark_used(connection: AsyncConnection, token_hash: bytes) -> None:
    """Record that a token was exchanged."""
    await connection.execute(
        update(refresh_tokens)
        .where(refresh_tokens.c.token_hash == token_hash)
        .values(used_at=func.now())
    )


async def revoke_family(connection: AsyncConnection, family_id: uuid.UUID) -> None:
    """Revoke every token of a family."""
    columns = refresh_tokens.c
    await connection.execute(
        update(refresh_tokens)
        .where(columns.family_id == family_id, columns.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )


async def prune_refresh_tokens(connection: AsyncConnection) -> None:
    """Delete some expired tokens.

    More than the one that each login adds, so that the table does not grow. Locked rows are
    skipped: this never waits, hence cannot deadlock.
    """
    expired = (
        select(refresh_tokens.c.token_hash)
        .where(refresh_tokens.c.expires_at <= func.now())
        .order_by(refresh_tokens.c.expires_at)
        .limit(_MAX_PRUNED)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.token_hash.in_(expired)))
