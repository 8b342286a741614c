"""What user_service does: accounts, logins and refresh tokens."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service_kit.errors import AlreadyExists, InvalidArgument, NotFound, Unauthenticated
from service_kit.pagination import decode_int_token, page_size, split_page
from service_kit.postgres.engine import autocommit, transaction
from user_service import repository
from user_service.domain import (
    Session,
    User,
    canonical_email,
    hash_refresh_token,
    new_refresh_token,
    valid_email,
    valid_name,
)
from user_service.passwords import Passwords, check_password

log = structlog.get_logger(__name__)

MAX_IDS = 1_000


async def register_user(
    engine: AsyncEngine, passwords: Passwords, *, email: str, password: str, name: str
) -> User:
    """Create a customer.

    InvalidArgument (INVALID_EMAIL, INVALID_NAME, INVALID_PASSWORD) for what breaks a rule,
    AlreadyExists (EMAIL_TAKEN) if an account has this e-mail, whatever its case.
    """
    email, name = valid_email(email), valid_name(name)
    check_password(password)
    password_hash = await passwords.hash(password)
    async with transaction(engine) as connection:
        user = await repository.insert_customer(
            connection, email=email, name=name, password_hash=password_hash
        )
    if user is None:
        raise AlreadyExists(
            "EMAIL_TAKEN", "An account with this e-mail already exists.", field="email"
        )
    return user


async def ensure_administrator(
    engine: AsyncEngine, passwords: Passwords, *, email: str, password: str
) -> None:
    """Create an administrator, or make one of the account with this e-mail, password unchanged."""
    email = valid_email(email)
    password_hash = await passwords.hash(password)
    async with transaction(engine) as connection:
        user_id = await repository.upsert_administrator(
            connection, email=email, name="Administrator", password_hash=password_hash
        )
    if user_id is not None:
        log.info("account is now an administrator", user_id=user_id)


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
    async with autocommit(engine) as connection:
        found = await repository.get_credentials(connection, canonical_email(email) or "")
    verification = await passwords.verify(password, found.password_hash if found else None)
    if found is None or not found.user.active or not verification.matches:
        raise Unauthenticated("INVALID_CREDENTIALS", "The e-mail or the password is wrong.")
    async with transaction(engine) as connection:
        if verification.new_hash is not None:
            await repository.replace_password_hash(
                connection, found.user.id, found.password_hash, verification.new_hash
            )
        return await _open_session(connection, found.user, uuid.uuid4(), token_lifetime)


async def get_user(engine: AsyncEngine, user_id: int) -> User:
    """The account with this id; NotFound (USER_NOT_FOUND) if it does not exist."""
    found = await batch_get_users(engine, [user_id])
    if not found:
        raise NotFound("USER_NOT_FOUND", f"User {user_id} does not exist.", user_id=user_id)
    return found[0]


async def batch_get_users(engine: AsyncEngine, user_ids: Sequence[int]) -> Sequence[User]:
    """The accounts with these ids, unordered; InvalidArgument (TOO_MANY_ITEMS) for over 1,000."""
    if len(user_ids) > MAX_IDS:
        message = f"At most {MAX_IDS:,} ids are allowed in one call."
        raise InvalidArgument("TOO_MANY_ITEMS", message, field="user_ids")
    if not user_ids:
        return []
    async with autocommit(engine) as connection:
        return await repository.get_users(connection, user_ids)


async def list_users(engine: AsyncEngine, *, size: int, token: str) -> tuple[Sequence[User], str]:
    """A page of accounts by ascending id, and the token of the next page ("" at the end)."""
    size, after = page_size(size), decode_int_token(token)
    async with autocommit(engine) as connection:
        found = await repository.list_users(connection, after=after, limit=size + 1)
    return split_page(found, size, lambda user: user.id)


async def rotate_refresh_token(
    engine: AsyncEngine, token_lifetime: timedelta, token: str
) -> Session:
    """Exchange a token for its successor.

    Unauthenticated (INVALID_REFRESH_TOKEN) if it is unknown, revoked, expired or its account is
    closed; also if it was used before, which revokes its family.
    """
    async with transaction(engine) as connection:
        session = await _rotate(connection, token_lifetime, hash_refresh_token(token))
    # Raised only here, so that the revocation of a family is committed.
    if session is None:
        raise _invalid_refresh_token()
    return session


async def _rotate(
    connection: AsyncConnection, token_lifetime: timedelta, token_hash: bytes
) -> Session | None:
    owner = await repository.lock_owner(connection, token_hash)
    presented = await repository.get_refresh_token(connection, token_hash)
    if owner is None or presented is None:
        return None
    if presented.used:
        await repository.revoke_family(connection, presented.family_id)
        log.warning("refresh token used again", user_id=owner.id, family=str(presented.family_id))
        return None
    if not (presented.is_exchangeable and owner.active):
        return None
    await repository.mark_used(connection, token_hash)
    return await _open_session(connection, owner, presented.family_id, token_lifetime)


async def _open_session(
    connection: AsyncConnection, user: User, family_id: uuid.UUID, token_lifetime: timedelta
) -> Session:
    await repository.prune_refresh_tokens(connection)
    token = new_refresh_token()
    expires_at = await repository.insert_refresh_token(
        connection,
        hash_refresh_token(token),
        user_id=user.id,
        family_id=family_id,
        lifetime=token_lifetime,
    )
    return Session(user, token, expires_at)


async def revoke_refresh_token(engine: AsyncEngine, token: str) -> None:
    """Revoke a token's family; Unauthenticated (INVALID_REFRESH_TOKEN) if it is unknown."""
    token_hash = hash_refresh_token(token)
    async with transaction(engine) as connection:
        await repository.lock_owner(connection, token_hash)
        presented = await repository.get_refresh_token(connection, token_hash)
        if presented is not None:
            await repository.revoke_family(connection, presented.family_id)
    if presented is None:
        raise _invalid_refresh_token()


def _invalid_refresh_token() -> Unauthenticated:
    return Unauthenticated("INVALID_REFRESH_TOKEN", "The refresh token is invalid or already used.")
