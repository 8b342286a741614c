"""What user_service does: accounts, logins and refresh tokens."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import ARRAY, BigInteger, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service_kit.errors import AlreadyExists, InvalidArgument, NotFound, Unauthenticated
from service_kit.pagination import decode_int_token, encode_token, page_size
from service_kit.postgres.engine import autocommit, transaction
from user_service import tokens
from user_service.models import (
    USER_COLUMNS,
    Role,
    Session,
    User,
    canonical_email,
    users,
    valid_email,
    valid_name,
)
from user_service.passwords import Passwords, check_password

log = structlog.get_logger(__name__)

MAX_IDS = 1_000

_BY_IDS = select(*USER_COLUMNS).where(
    users.c.id == bindparam("ids", type_=ARRAY(BigInteger)).any_()
)


async def register_user(
    engine: AsyncEngine, passwords: Passwords, *, email: str, password: str, name: str
) -> User:
    """Create a customer.

    InvalidArgument (INVALID_EMAIL, INVALID_NAME, INVALID_PASSWORD) for what breaks a rule,
    AlreadyExists (EMAIL_TAKEN) if there is an account with this e-mail, whatever its case.
    """
    values = {"email": valid_email(email), "name": valid_name(name), "role": Role.CUSTOMER}
    check_password(password)
    password_hash = await passwords.hash(password)
    statement = (
        insert(users)
        .values(password_hash=password_hash, **values)
        # The constraint decides between concurrent registrations. An IntegrityError would do as
        # well, but PostgreSQL would write the address to its log.
        .on_conflict_do_nothing(index_elements=[users.c.email])
        .returning(*USER_COLUMNS)
    )
    async with transaction(engine) as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise AlreadyExists("EMAIL_TAKEN", "there is an account with this e-mail", field="email")
    return User.of(row)


async def ensure_administrator(
    engine: AsyncEngine, passwords: Passwords, *, email: str, password: str
) -> None:
    """Create an administrator, or make one of the account with this e-mail, password unchanged."""
    statement = insert(users).values(
        email=valid_email(email),
        name="Administrator",
        role=Role.ADMIN,
        password_hash=await passwords.hash(password),
    )
    statement = statement.on_conflict_do_update(
        index_elements=[users.c.email],
        set_={"role": Role.ADMIN},
        where=users.c.role != Role.ADMIN,
    )
    async with transaction(engine) as connection:
        row = (await connection.execute(statement.returning(users.c.id))).one_or_none()
    if row is not None:
        log.info("account is now an administrator", user_id=row.id)


async def authenticate(
    engine: AsyncEngine,
    passwords: Passwords,
    token_lifetime: timedelta,
    *,
    email: str,
    password: str,
) -> Session:
    """Check a password and open a family of refresh tokens.

    Unauthenticated (INVALID_CREDENTIALS) for an unknown e-mail, a wrong password and a closed
    account alike, after the same work.
    """
    found = await _account(engine, email)
    verification = await passwords.verify(password, found[1] if found else None)
    if found is None or not found[0].active or not verification.matches:
        raise Unauthenticated("INVALID_CREDENTIALS", "e-mail or password is wrong")
    user, old_hash = found
    async with transaction(engine) as connection:
        if verification.new_hash is not None:
            await _rehash(connection, user.id, old_hash, verification.new_hash)
        return await tokens.issue(connection, user, uuid.uuid4(), token_lifetime)


async def _account(engine: AsyncEngine, email: str) -> tuple[User, str] | None:
    """The account with this e-mail, and the hash of its password."""
    statement = select(*USER_COLUMNS, users.c.password_hash).where(
        users.c.email == (canonical_email(email) or "")
    )
    async with autocommit(engine) as connection:
        row = (await connection.execute(statement)).one_or_none()
    return None if row is None else (User.of(row[:-1]), row.password_hash)


async def _rehash(connection: AsyncConnection, user_id: int, old: str, new: str) -> None:
    # A password changed in the meantime must not come back.
    unchanged = (users.c.id == user_id) & (users.c.password_hash == old)
    await connection.execute(update(users).where(unchanged).values(password_hash=new))


async def get_user(engine: AsyncEngine, user_id: int) -> User:
    """The account with this id; NotFound (USER_NOT_FOUND) if there is none."""
    found = await batch_get_users(engine, [user_id])
    if not found:
        raise NotFound("USER_NOT_FOUND", f"there is no user {user_id}", user_id=user_id)
    return found[0]


async def batch_get_users(engine: AsyncEngine, user_ids: Sequence[int]) -> Sequence[User]:
    """The accounts with these ids, unordered; InvalidArgument (TOO_MANY_IDS) for over 1000."""
    if len(user_ids) > MAX_IDS:
        raise InvalidArgument("TOO_MANY_IDS", f"at most {MAX_IDS} ids at once", field="user_ids")
    if not user_ids:
        return []
    async with autocommit(engine) as connection:
        rows = (await connection.execute(_BY_IDS, {"ids": user_ids})).all()
    return [User.of(row) for row in rows]


async def list_users(engine: AsyncEngine, *, size: int, token: str) -> tuple[list[User], str]:
    """A page of accounts by ascending id, and the token of the next page, if there is one."""
    limit = page_size(size)
    statement = select(*USER_COLUMNS).order_by(users.c.id).limit(limit + 1)
    last = decode_int_token(token)
    if last is not None:
        statement = statement.where(users.c.id > last)
    async with autocommit(engine) as connection:
        rows = (await connection.execute(statement)).all()
    page = [User.of(row) for row in rows[:limit]]
    return page, encode_token(page[-1].id) if len(rows) > limit else ""


async def rotate_refresh_token(
    engine: AsyncEngine, token_lifetime: timedelta, token: str
) -> Session:
    """Exchange a token for its successor.

    Unauthenticated (INVALID_REFRESH_TOKEN) if it is unknown, revoked, expired or its account is
    closed; also if it was used before, which revokes its family.
    """
    async with transaction(engine) as connection:
        session = await _rotate(connection, token_lifetime, token)
    # Raised only here, so that the revocation of a family is committed.
    if session is None:
        raise _invalid_refresh_token()
    return session


async def _rotate(
    connection: AsyncConnection, token_lifetime: timedelta, token: str
) -> Session | None:
    owner = await tokens.lock_owner(connection, token)
    presented = await tokens.find(connection, token)
    if owner is None or presented is None:
        return None
    if presented.used:
        await tokens.revoke_family(connection, presented.family_id)
        log.warning("refresh token used again", user_id=owner.id, family=str(presented.family_id))
        return None
    if not (presented.is_exchangeable and owner.active):
        return None
    await tokens.mark_used(connection, token)
    return await tokens.issue(connection, owner, presented.family_id, token_lifetime)


async def revoke_refresh_token(engine: AsyncEngine, token: str) -> None:
    """Revoke a token's family; Unauthenticated (INVALID_REFRESH_TOKEN) if it is unknown."""
    async with transaction(engine) as connection:
        await tokens.lock_owner(connection, token)
        presented = await tokens.find(connection, token)
        if presented is not None:
            await tokens.revoke_family(connection, presented.family_id)
    if presented is None:
        raise _invalid_refresh_token()


def _invalid_refresh_token() -> Unauthenticated:
    return Unauthenticated("INVALID_REFRESH_TOKEN", "the refresh token is not valid")
