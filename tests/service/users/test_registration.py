"""Registration, and the first administrator."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from proto import user_pb2 as pb
from service_kit.errors import AlreadyExists, InvalidArgument
from tests.service.users.user_service import PASSWORD, Service, new_email, refused
from user_service.operations import ensure_administrator


async def test_a_registration_creates_an_active_customer(service: Service) -> None:
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
    email = new_email()
    spellings = [email.upper() if number % 2 else email for number in range(20)]
    results = await asyncio.gather(
        *(service.register(spelling) for spelling in spellings), return_exceptions=True
    )
    winners = [result for result in results if isinstance(result, pb.User)]
    assert len(winners) == 1
    assert {result.reason for result in results if isinstance(result, AlreadyExists)} == {
        "EMAIL_TAKEN"
    }
    assert sum(isinstance(result, AlreadyExists) for result in results) == 19
    accounts, _ = await service.rows()
    assert [row.id for row in accounts if row.email == email] == [winners[0].id]


@pytest.mark.parametrize(
    ("field", "reason"),
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
    service: Service, field: dict[str, str], reason: str
) -> None:
    fields = {"email": new_email(), "password": PASSWORD, "name": "Ada", **field}
    error = await refused(service, "RegisterUser", pb.RegisterUserRequest(**fields))
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.metadata) == (reason, {"field": next(iter(field))})


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


async def test_replicas_that_start_together_create_one_administrator(service: Service) -> None:
    email = new_email()
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
