"""Refresh tokens: exchanged once, revoked as a family, and deleted once expired."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from proto import user_pb2 as pb
from service_kit.errors import Unauthenticated
from tests.service.users.user_service import Service, refused, sha256
from user_service.tables import refresh_tokens


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
    results = await asyncio.gather(
        *(service.rotate(first.refresh_token) for _ in range(10)), return_exceptions=True
    )
    winners = [result for result in results if isinstance(result, pb.AuthenticateResponse)]
    refusals = [result for result in results if isinstance(result, Unauthenticated)]
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


async def test_concurrent_reuse_of_several_old_tokens_does_not_deadlock(service: Service) -> None:
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


async def test_expired_tokens_are_deleted_when_new_ones_are_issued(service: Service) -> None:
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
