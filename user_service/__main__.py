"""`python -m user_service` serves; `python -m user_service migrate` only migrates its database."""

import asyncio
import sys
from functools import partial
from pathlib import Path

from proto.user_pb2_grpc import add_UserServiceServicer_to_server
from service_kit.database import connected
from service_kit.grpc_server import serving
from service_kit.lifecycle import run
from service_kit.migrations import migrate
from user_service.operations import ensure_administrator
from user_service.passwords import Passwords
from user_service.servicer import SERVICE_NAME, UserServicer
from user_service.settings import Settings


async def migrate_database(settings: Settings, _stop: asyncio.Event) -> None:
    """Bring the database to the newest revision."""
    await migrate(settings.user_database_url, Path(__file__).with_name("migrations"))


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; the administrator of the settings exists before that."""
    await migrate_database(settings, stop)
    with Passwords(
        time_cost=settings.password_hash_time_cost,
        memory_cost=settings.password_hash_memory_cost,
        parallelism=settings.password_hash_parallelism,
        workers=settings.password_hash_workers,
        queue=settings.password_hash_queue,
    ) as passwords:
        async with connected(settings.user_database_url, "user_service") as engine:
            if settings.admin_email and settings.admin_password:
                await ensure_administrator(
                    engine,
                    passwords,
                    email=settings.admin_email,
                    password=settings.admin_password.get_secret_value(),
                )
            servicer = UserServicer(engine, passwords, settings.refresh_token_lifetime)
            add = partial(add_UserServiceServicer_to_server, servicer)
            address = f"{settings.bind_host}:{settings.user_service_port}"
            async with serving(address, {SERVICE_NAME: add}):
                await stop.wait()


if __name__ == "__main__":
    sys.exit(run("user_service", Settings, serve, migrate=migrate_database))
