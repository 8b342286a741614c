"""Logging in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proto import user_pb2 as pb
from service_kit.errors import Unauthenticated
from tests.service.users.user_service import (
    CHEAP,
    LIFETIME,
    PASSWORD,
    Service,
    new_email,
    refused,
    running,
)
from user_service.passwords import Passwords


async def test_a_login_returns_the_user_and_a_refresh_token_for_30_days(
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


async def test_every_refused_login_has_the_same_error(service: Service) -> None:
    user, closed = await service.register(), await service.register()
    await service.close_account(closed.id)
    attempts = [
        (user.email, "wrong horse battery"),
        (user.email, ""),
        (user.email, PASSWORD + "\0"),
        (user.email, "x" * 100_000),
        (closed.email, PASSWORD),
        (closed.email, "wrong horse battery"),
        (new_email(), PASSWORD),
        ("not an address", PASSWORD),
        ("nul\0@example.com", PASSWORD),
        ("", PASSWORD),
    ]
    results = set()
    for email, password in attempts:
        request = pb.AuthenticateRequest(email=email, password=password)
        error = await refused(service, "Authenticate", request)
        assert isinstance(error, Unauthenticated)
        results.add((error.reason, error.message, str(error.metadata)))
    assert len(results) == 1
    assert next(iter(results))[0] == "INVALID_CREDENTIALS"


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
    for email in (user.email, closed.email, new_email(), "not an address"):
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
