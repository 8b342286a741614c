"""`python -m user_service` serves; `--help` lists the other commands."""

import asyncio
from functools import partial

from proto.user_pb2_grpc import add_UserServiceServicer_to_server
from service_kit.cli import service_cli
from service_kit.grpc.server import serve_grpc
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate
from user_service.cli import commands
from user_service.operations import ensure_administrator
from user_service.passwords import Passwords
from user_service.servicer import SERVICE_NAME, UserServicer
from user_service.settings import Settings


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; the administrator of the settings exists before that."""
    await migrate(settings.user_database_url, "user_service")
    with Passwords(
        time_cost=settings.password_hash_time_cost,
        memory_cost=settings.password_hash_memory_cost,
        parallelism=settings.password_hash_parallelism,
        workers=settings.password_hash_workers,
        queue=settings.password_hash_queue,
    ) as passwords:
        async with open_engine(settings.user_database_url, "user_service") as engine:
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
            async with serve_grpc(address, {SERVICE_NAME: add}):
                await stop.wait()


app = service_cli(
    "user_service",
    Settings,
    serve,
    "Accounts: registration, passwords, refresh tokens.",
    commands,
)

if __name__ == "__main__":
    app(prog_name="python -m user_service")
