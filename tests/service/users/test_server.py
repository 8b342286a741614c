"""The migrations, and the process."""

import asyncio
import os
import subprocess
import sys

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import select, text

from proto import user_pb2 as pb
from proto import user_pb2_grpc
from proto.user_pb2_grpc import UserServiceStub
from service_kit.errors import Unauthenticated
from service_kit.grpc.client import call, open_channel
from service_kit.postgres.engine import open_engine
from tests.service.users.user_service import PASSWORD, Service, new_email
from tests.support.database import differences, schema
from tests.support.infrastructure import CHECKOUT, Infrastructure
from tests.support.waiting import free_port
from user_service.servicer import SERVICE_NAME
from user_service.tables import metadata, users


async def test_the_migrations_create_what_the_tables_describe(
    service: Service, infrastructure: Infrastructure
) -> None:
    assert await differences(service.engine, metadata) == []
    async with infrastructure.database() as url, open_engine(url, "tests") as engine:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        assert await schema(service.engine) == await schema(engine)


async def test_replicas_may_migrate_at_the_same_time(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as url:
        replicas = [start_process(url, "migrate") for _ in range(3)]
        outputs = [await asyncio.to_thread(replica.communicate) for replica in replicas]
        assert [replica.returncode for replica in replicas] == [0, 0, 0], outputs
        async with open_engine(url, "test") as engine, engine.connect() as connection:
            revisions = await connection.execute(text("SELECT version_num FROM alembic_version"))
            assert revisions.scalars().all() == ["0001"]
            assert (await connection.execute(select(users))).all() == []


async def test_the_process_serves_logs_no_secrets_and_stops_on_sigterm(
    infrastructure: Infrastructure,
) -> None:
    email, port = new_email(), free_port()
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
