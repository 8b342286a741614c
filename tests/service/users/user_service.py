"""The user service inside the test's process, its database, and calls to it."""

import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from proto import user_pb2 as pb
from proto import user_pb2_grpc
from proto.user_pb2_grpc import UserServiceStub, add_UserServiceServicer_to_server
from service_kit.errors import ServiceError, Unauthenticated
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.server import serve_grpc
from service_kit.postgres.engine import open_engine
from tests.support.waiting import free_port
from user_service.passwords import Passwords
from user_service.servicer import SERVICE_NAME, UserServicer
from user_service.tables import refresh_tokens, users

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
            email=email or new_email(), password=password, name="Ada Lovelace"
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


def new_email() -> str:
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


async def refused(service: Service, method: str, request: Any) -> ServiceError:
    """The error of a call that has to fail and to change nothing."""
    before = await service.rows()
    with pytest.raises(ServiceError) as refusal:
        await service.call(method, request)
    assert await service.rows() == before
    return refusal.value
