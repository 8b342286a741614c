"""The user service over gRPC, against a real PostgreSQL."""

import asyncio
import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import event, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

import user_service
from proto import user_pb2 as pb
from proto import user_pb2_grpc
from proto.user_pb2_grpc import UserServiceStub, add_UserServiceServicer_to_server
from service_kit.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ServiceError,
    Unauthenticated,
)
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.server import serve_grpc
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate
from tests.support.infrastructure import CHECKOUT, Infrastructure
from tests.support.waiting import free_port
from user_service.models import metadata, refresh_tokens, users
from user_service.operations import ensure_administrator
from user_service.passwords import Passwords
from user_service.servicer import SERVICE_NAME, UserServicer

MIGRATIONS = Path(user_service.__file__).with_name("migrations")
PASSWORD = "correct horse battery"
LIFETIME = timedelta(days=30)
CHEAP = {"time_cost": 1, "memory_cost": 16, "parallelism": 1}
UNKNOWN_ID = 2**62


@dataclass(frozen=True)
class Service:
    """The running service, and the database behind it."""

    stub: "user_pb2_grpc.UserServiceAsyncStub"
    engine: AsyncEngine
    passwords: Passwords

    async def call(self, method: str, request: Any) -> Any:
        return await call(getattr(self.stub, method), request, timeout=20)

    async def register(self, email: str = "", password: str = PASSWORD) -> pb.User:
        request = pb.RegisterUserRequest(
            email=email or some_email(), password=password, name="Ada Lovelace"
        )
        return await call(self.stub.RegisterUser, request, timeout=20)

    async def log_in(self, email: str, password: str = PASSWORD) -> pb.AuthenticateResponse:
        request = pb.AuthenticateRequest(email=email, password=password)
        return await call(self.stub.Authenticate, request, timeout=20)

    async def new_session(self) -> pb.AuthenticateResponse:
        return await self.log_in((await self.register()).email)

    async def rotate(self, token: str) -> pb.AuthenticateResponse:
        request = pb.RotateRefreshTokenRequest(refresh_token=token)
        return await call(self.stub.RotateRefreshToken, request, timeout=20)

    async def revoke(self, token: str) -> None:
        await self.call("RevokeRefreshToken", pb.RevokeRefreshTokenRequest(refresh_token=token))

    async def is_refused(self, token: str) -> bool:
        try:
            await self.rotate(token)
        except Unauthenticated as refusal:
            return refusal.reason == "INVALID_REFRESH_TOKEN"
        return False

    async def rows(self) -> tuple[Any, ...]:
        """Everything that is stored."""
        async with self.engine.connect() as connection:
            accounts = await connection.execute(select(users).order_by(users.c.id))
            tokens = await connection.execute(
                select(refresh_tokens).order_by(refresh_tokens.c.token_hash)
            )
            return tuple(accounts.all()), tuple(tokens.all())

    async def change(self, statement: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(statement)

    async def close_account(self, user_id: int) -> None:
        await self.change(update(users).where(users.c.id == user_id).values(active=False))

    async def token_row(self, token: str) -> Any:
        statement = select(refresh_tokens).where(refresh_tokens.c.token_hash == sha256(token))
        async with self.engine.connect() as connection:
            return (await connection.execute(statement)).one_or_none()


def some_email() -> str:
    return f"{uuid.uuid4().hex}@example.com"


def sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@asynccontextmanager
async def running(database_url: str, passwords: Passwords) -> AsyncIterator[Service]:
    address = f"127.0.0.1:{free_port()}"
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(database_url, "user_service"))
        servicer = UserServicer(engine, passwords, LIFETIME)
        add = partial(add_UserServiceServicer_to_server, servicer)
        await stack.enter_async_context(serve_grpc(address, {SERVICE_NAME: add}))
        channel = await stack.enter_async_context(open_channel(address, SERVICE_NAME))
        yield Service(UserServiceStub(channel), engine, passwords)


@pytest_asyncio.fixture(scope="module")
async def service(user_database_url: str) -> AsyncIterator[Service]:
    await migrate(user_database_url, MIGRATIONS)
    with Passwords(**CHEAP, workers=2, queue=100) as passwords:
        async with running(user_database_url, passwords) as started:
            yield started


async def refused(service: Service, method: str, request: Any) -> ServiceError:
    """The error of a call that has to fail and to change nothing."""
    before = await service.rows()
    with pytest.raises(ServiceError) as refusal:
        await service.call(method, request)
    assert await service.rows() == before
    return refusal.value


# Registration


async def test_who_registers_becomes_an_active_customer(service: Service) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    user = await service.register(f"  Ada.{uuid.uuid4().hex.upper()}@Example.COM ")
    assert user.email == user.email.strip().lower()
    assert (user.name, user.role, user.active) == ("Ada Lovelace", pb.ROLE_CUSTOMER, True)
    assert before < user.create_time.ToDatetime(UTC) < datetime.now(UTC) + timedelta(seconds=5)
    assert await service.call("GetUser", pb.GetUserRequest(user_id=user.id)) == user


@pytest.mark.parametrize("rewrite", [str, str.upper, str.title, " {} ".format])
async def test_an_email_registers_once_whatever_its_case(
    service: Service, rewrite: Callable[[str], str]
) -> None:
    taken = (await service.register()).email
    request = pb.RegisterUserRequest(email=rewrite(taken), password=PASSWORD, name="Eve")
    error = await refused(service, "RegisterUser", request)
    assert isinstance(error, AlreadyExists)
    assert (error.reason, error.metadata) == ("EMAIL_TAKEN", {"field": "email"})
    assert taken not in error.message


async def test_of_20_registrations_of_one_email_at_once_exactly_one_succeeds(
    service: Service,
) -> None:
    email = some_email()
    spellings = [email.upper() if number % 2 else email for number in range(20)]
    answers = await asyncio.gather(
        *(service.register(spelling) for spelling in spellings), return_exceptions=True
    )
    winners = [answer for answer in answers if isinstance(answer, pb.User)]
    assert len(winners) == 1
    assert {answer.reason for answer in answers if isinstance(answer, AlreadyExists)} == {
        "EMAIL_TAKEN"
    }
    assert sum(isinstance(answer, AlreadyExists) for answer in answers) == 19
    accounts, _ = await service.rows()
    assert [row.id for row in accounts if row.email == email] == [winners[0].id]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"email": "not-an-address"}, "INVALID_EMAIL"),
        ({"email": ""}, "INVALID_EMAIL"),
        ({"email": "nul\0@example.com"}, "INVALID_EMAIL"),
        ({"password": "123456789"}, "INVALID_PASSWORD"),
        ({"password": "x" * 129}, "INVALID_PASSWORD"),
        ({"password": "0123456789\0"}, "INVALID_PASSWORD"),
        ({"name": ""}, "INVALID_NAME"),
        ({"name": "x" * 101}, "INVALID_NAME"),
        ({"name": "line\nbreak"}, "INVALID_NAME"),
    ],
)
async def test_a_registration_that_breaks_a_rule_is_refused(
    service: Service, fault: dict[str, str], reason: str
) -> None:
    fields = {"email": some_email(), "password": PASSWORD, "name": "Ada", **fault}
    error = await refused(service, "RegisterUser", pb.RegisterUserRequest(**fields))
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.metadata) == (reason, {"field": next(iter(fault))})


async def test_only_hashes_of_passwords_and_tokens_are_stored(service: Service) -> None:
    password = f"secret {uuid.uuid4()}"
    user = await service.register(password=password)
    first = await service.log_in(user.email, password)
    second = await service.rotate(first.refresh_token)
    stored = repr(await service.rows())
    for secret in (password, first.refresh_token, second.refresh_token):
        assert secret not in stored
        assert repr(secret.encode())[2:-1] not in stored
    accounts, _ = await service.rows()
    [account] = [row for row in accounts if row.id == user.id]
    assert account.password_hash.startswith("$argon2id$")
    assert (await service.token_row(second.refresh_token)).user_id == user.id


# Logging in


async def test_a_login_answers_with_the_user_and_a_refresh_token_for_30_days(
    service: Service,
) -> None:
    user = await service.register()
    session = await service.log_in(f" {user.email.upper()} ")
    assert session.user == user
    assert len(session.refresh_token) == 43  # 256 bits
    left = session.refresh_expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert abs(left - LIFETIME) < timedelta(minutes=1)
    other = await service.log_in(user.email)
    families = {
        (await service.token_row(token)).family_id
        for token in (session.refresh_token, other.refresh_token)
    }
    assert len(families) == 2


async def test_every_refused_login_is_refused_in_the_same_words(service: Service) -> None:
    user, closed = await service.register(), await service.register()
    await service.close_account(closed.id)
    attempts = [
        (user.email, "wrong horse battery"),
        (user.email, ""),
        (user.email, PASSWORD + "\0"),
        (user.email, "x" * 100_000),
        (closed.email, PASSWORD),
        (closed.email, "wrong horse battery"),
        (some_email(), PASSWORD),
        ("not an address", PASSWORD),
        ("nul\0@example.com", PASSWORD),
        ("", PASSWORD),
    ]
    answers = set()
    for email, password in attempts:
        request = pb.AuthenticateRequest(email=email, password=password)
        error = await refused(service, "Authenticate", request)
        assert isinstance(error, Unauthenticated)
        answers.add((error.reason, error.message, str(error.metadata)))
    assert len(answers) == 1
    assert next(iter(answers))[0] == "INVALID_CREDENTIALS"


async def test_an_unknown_email_costs_the_same_verification_as_a_known_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, closed = await service.register(), await service.register()
    await service.close_account(closed.id)
    verified: list[str] = []
    verify = service.passwords._hasher.verify_and_update

    def watched(password: str, stored: str) -> Any:
        verified.append(stored.rsplit("$", 2)[0])
        return verify(password, stored)

    monkeypatch.setattr(service.passwords._hasher, "verify_and_update", watched)
    for email in (user.email, closed.email, some_email(), "not an address"):
        with pytest.raises(Unauthenticated):
            await service.log_in(email, "wrong horse battery")
    assert verified == ["$argon2id$v=19$m=16,t=1,p=1"] * 4


async def test_a_login_renews_a_hash_whose_parameters_have_changed(
    service: Service, user_database_url: str
) -> None:
    user = await service.register()
    with Passwords(**{**CHEAP, "memory_cost": 32}, workers=1, queue=10) as costlier:
        async with running(user_database_url, costlier) as upgraded:
            wrong = pb.AuthenticateRequest(email=user.email, password="wrong horse battery")
            await refused(upgraded, "Authenticate", wrong)
            await upgraded.log_in(user.email)
            renewed = await password_hash(service, user.id)
            assert "$m=32,t=1,p=1$" in renewed
            await upgraded.log_in(user.email)
            assert await password_hash(service, user.id) == renewed


async def password_hash(service: Service, user_id: int) -> str:
    accounts, _ = await service.rows()
    return str(next(row.password_hash for row in accounts if row.id == user_id))


# Refresh tokens


async def test_a_refresh_token_is_exchanged_for_its_successor(service: Service) -> None:
    first = await service.new_session()
    second = await service.rotate(first.refresh_token)
    assert second.user == first.user
    assert second.refresh_token != first.refresh_token
    assert second.refresh_expire_time.ToDatetime() >= first.refresh_expire_time.ToDatetime()
    old = await service.token_row(first.refresh_token)
    new = await service.token_row(second.refresh_token)
    assert old.family_id == new.family_id
    assert old.used_at is not None
    assert (new.used_at, new.revoked_at) == (None, None)
    assert (await service.rotate(second.refresh_token)).user == first.user


async def test_a_token_used_again_revokes_its_family_and_no_other(service: Service) -> None:
    first = await service.new_session()
    elsewhere = await service.log_in(first.user.email)
    second = await service.rotate(first.refresh_token)
    assert await service.is_refused(first.refresh_token)
    for token in (first.refresh_token, second.refresh_token):
        assert (await service.token_row(token)).revoked_at is not None
    assert await service.is_refused(second.refresh_token)
    assert (await service.rotate(elsewhere.refresh_token)).user == first.user


async def test_of_concurrent_rotations_one_wins_and_the_others_revoke_the_family(
    service: Service,
) -> None:
    first = await service.new_session()
    answers = await asyncio.gather(
        *(service.rotate(first.refresh_token) for _ in range(10)), return_exceptions=True
    )
    winners = [answer for answer in answers if isinstance(answer, pb.AuthenticateResponse)]
    refusals = [answer for answer in answers if isinstance(answer, Unauthenticated)]
    assert (len(winners), len(refusals)) == (1, 9)
    assert (await service.token_row(winners[0].refresh_token)).revoked_at is not None
    assert await service.is_refused(winners[0].refresh_token)


@pytest.mark.parametrize("revoke", [Service.is_refused, Service.revoke], ids=["reuse", "logout"])
async def test_a_family_revoked_during_its_rotation_stays_revoked(
    service: Service, revoke: Callable[[Service, str], Awaitable[Any]]
) -> None:
    for _ in range(20):
        first = await service.new_session()
        second = await service.rotate(first.refresh_token)
        too_late, _ = await asyncio.gather(
            service.is_refused(second.refresh_token), revoke(service, first.refresh_token)
        )
        _, tokens = await service.rows()
        family = [row for row in tokens if row.user_id == first.user.id]
        assert len(family) == (2 if too_late else 3)
        assert [row for row in family if row.used_at is None and row.revoked_at is None] == []


async def test_concurrent_reuse_of_several_old_tokens_is_no_deadlock(service: Service) -> None:
    session = await service.new_session()
    old = []
    for _ in range(8):
        old.append(session.refresh_token)
        session = await service.rotate(session.refresh_token)
    assert await asyncio.gather(*map(service.is_refused, old * 2)) == [True] * 16


@pytest.mark.parametrize("token", ["", "never issued", "é\0", "x" * 1_000_000])
@pytest.mark.parametrize("method", ["RotateRefreshToken", "RevokeRefreshToken"])
async def test_an_unknown_token_is_refused(service: Service, method: str, token: str) -> None:
    request = getattr(pb, f"{method}Request")(refresh_token=token)
    error = await refused(service, method, request)
    assert isinstance(error, Unauthenticated)
    assert error.reason == "INVALID_REFRESH_TOKEN"


async def test_an_expired_token_is_refused(service: Service) -> None:
    session = await service.new_session()
    await expire(service, session.refresh_token)
    request = pb.RotateRefreshTokenRequest(refresh_token=session.refresh_token)
    error = await refused(service, "RotateRefreshToken", request)
    assert error.reason == "INVALID_REFRESH_TOKEN"


async def test_the_token_of_a_closed_account_is_refused(service: Service) -> None:
    session = await service.new_session()
    await service.close_account(session.user.id)
    request = pb.RotateRefreshTokenRequest(refresh_token=session.refresh_token)
    error = await refused(service, "RotateRefreshToken", request)
    assert error.reason == "INVALID_REFRESH_TOKEN"


async def test_logging_out_revokes_the_family_and_may_be_repeated(service: Service) -> None:
    first = await service.new_session()
    second = await service.rotate(first.refresh_token)
    await service.revoke(second.refresh_token)
    await service.revoke(second.refresh_token)
    request = pb.RotateRefreshTokenRequest(refresh_token=second.refresh_token)
    error = await refused(service, "RotateRefreshToken", request)
    assert error.reason == "INVALID_REFRESH_TOKEN"


async def test_logging_out_with_an_old_token_revokes_its_successor(service: Service) -> None:
    first = await service.new_session()
    second = await service.rotate(first.refresh_token)
    await service.revoke(first.refresh_token)
    assert await service.is_refused(second.refresh_token)


async def test_expired_tokens_are_forgotten_when_new_ones_are_issued(service: Service) -> None:
    dead = [await service.new_session() for _ in range(3)]
    alive = await service.new_session()
    for session in dead:
        await expire(service, session.refresh_token)
    successor = await service.rotate(alive.refresh_token)
    assert [await service.token_row(session.refresh_token) for session in dead] == [None] * 3
    assert await service.token_row(successor.refresh_token) is not None


async def expire(service: Service, token: str) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    await service.change(
        update(refresh_tokens)
        .where(refresh_tokens.c.token_hash == sha256(token))
        .values(expires_at=past)
    )


# Looking up


async def test_a_user_who_does_not_exist_is_not_found(service: Service) -> None:
    for user_id in (0, -1, UNKNOWN_ID):
        error = await refused(service, "GetUser", pb.GetUserRequest(user_id=user_id))
        assert isinstance(error, NotFound)
        assert error.reason == "USER_NOT_FOUND"


async def test_a_batch_holds_each_user_found_once_and_leaves_out_the_others(
    service: Service,
) -> None:
    first, second = await service.register(), await service.register()
    await service.close_account(second.id)
    ids = [second.id, UNKNOWN_ID, first.id, first.id, -5, 0]
    batch = await service.call("BatchGetUsers", pb.BatchGetUsersRequest(user_ids=ids))
    found = {user.id: user for user in batch.users}
    assert len(batch.users) == 2
    assert found[first.id] == first
    assert not found[second.id].active
    empty = await service.call("BatchGetUsers", pb.BatchGetUsersRequest())
    assert list(empty.users) == []


async def test_a_batch_of_1000_ids_is_one_statement_and_a_larger_one_is_refused(
    service: Service,
) -> None:
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    ids = range(UNKNOWN_ID, UNKNOWN_ID + 1000)
    event.listen(service.engine.sync_engine, "before_cursor_execute", record)
    try:
        await service.call("BatchGetUsers", pb.BatchGetUsersRequest(user_ids=ids))
    finally:
        event.remove(service.engine.sync_engine, "before_cursor_execute", record)
    assert len(statements) == 1
    request = pb.BatchGetUsersRequest(user_ids=[*ids, 1])
    error = await refused(service, "BatchGetUsers", request)
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.metadata) == ("TOO_MANY_IDS", {"field": "user_ids"})


async def test_the_pages_of_the_list_hold_all_users_by_ascending_id(service: Service) -> None:
    registered = [await service.register() for _ in range(5)]
    accounts, _ = await service.rows()
    listed: list[pb.User] = []
    token = ""
    while True:
        request = pb.ListUsersRequest(page_size=2, page_token=token)
        page = await service.call("ListUsers", request)
        listed.extend(page.users)
        token = page.next_page_token
        if not token:
            break
        assert len(page.users) == 2
    assert [user.id for user in listed] == [row.id for row in accounts]
    assert listed[-5:] == registered


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.ListUsersRequest(page_size=-1), "INVALID_PAGE_SIZE"),
        (pb.ListUsersRequest(page_token="%%%"), "INVALID_PAGE_TOKEN"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(
    service: Service, request_: pb.ListUsersRequest, reason: str
) -> None:
    assert (await refused(service, "ListUsers", request_)).reason == reason


# The first administrator


async def test_replicas_that_start_together_make_one_administrator(service: Service) -> None:
    email = some_email()
    make = partial(ensure_administrator, service.engine, service.passwords)
    await asyncio.gather(*(make(email=email, password=PASSWORD) for _ in range(5)))
    before = await service.rows()
    await make(email=email.upper(), password="another password")
    assert await service.rows() == before
    session = await service.log_in(email)
    assert session.user.role == pb.ROLE_ADMIN
    assert [row.email for row in before[0]].count(email) == 1


async def test_an_existing_account_becomes_administrator_and_keeps_its_password(
    service: Service,
) -> None:
    user = await service.register()
    await ensure_administrator(
        service.engine, service.passwords, email=user.email, password="another password"
    )
    promoted = (await service.log_in(user.email, PASSWORD)).user
    assert promoted == pb.User(
        id=user.id,
        email=user.email,
        name=user.name,
        role=pb.ROLE_ADMIN,
        active=True,
        create_time=user.create_time,
    )
    wrong = pb.AuthenticateRequest(email=user.email, password="another password")
    await refused(service, "Authenticate", wrong)


# The database and the process


async def test_the_migrations_make_what_the_models_describe(service: Service) -> None:
    async with service.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(
                    sync, opts={"compare_type": True, "compare_server_default": True}
                ),
                metadata,
            )
        )
    assert differences == []


async def test_replicas_may_migrate_at_the_same_time(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as url:
        replicas = [start_process(url, "migrate") for _ in range(3)]
        outputs = [await asyncio.to_thread(replica.communicate) for replica in replicas]
        assert [replica.returncode for replica in replicas] == [0, 0, 0], outputs
        async with open_engine(url, "test") as engine, engine.connect() as connection:
            revisions = await connection.execute(text("SELECT version_num FROM alembic_version"))
            assert revisions.scalars().all() == ["0001"]
            assert (await connection.execute(select(users))).all() == []


async def test_the_process_serves_logs_no_secrets_and_stops_when_told_to(
    infrastructure: Infrastructure,
) -> None:
    email, port = some_email(), free_port()
    async with infrastructure.database() as url:
        process = start_process(
            url, USER_SERVICE_PORT=str(port), ADMIN_EMAIL=email, ADMIN_PASSWORD=PASSWORD
        )
        try:
            async with open_channel(f"127.0.0.1:{port}", SERVICE_NAME) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
                await health.Check(request, timeout=30, wait_for_ready=True)
                token = await use(UserServiceStub(channel), email)
        finally:
            process.terminate()
            output, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, output
    assert '"account is now an administrator"' in output
    assert '"refresh token used again"' in output
    for secret in (PASSWORD, email, token, "$argon2"):
        assert secret not in output


async def use(stub: "user_pb2_grpc.UserServiceAsyncStub", email: str) -> str:
    """Log in as administrator, fail to, and use a refresh token twice; returns the token."""
    good = pb.AuthenticateRequest(email=email, password=PASSWORD)
    session = await call(stub.Authenticate, good, timeout=20)
    assert session.user.role == pb.ROLE_ADMIN
    bad = pb.AuthenticateRequest(email=email, password=PASSWORD + "!")
    with pytest.raises(Unauthenticated):
        await call(stub.Authenticate, bad, timeout=20)
    rotation = pb.RotateRefreshTokenRequest(refresh_token=session.refresh_token)
    await call(stub.RotateRefreshToken, rotation, timeout=20)
    with pytest.raises(Unauthenticated):
        await call(stub.RotateRefreshToken, rotation, timeout=20)
    return str(session.refresh_token)


def start_process(url: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "user_service", *arguments],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "USER_DATABASE_URL": url,
            "PASSWORD_HASH_MEMORY_COST": "16",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
