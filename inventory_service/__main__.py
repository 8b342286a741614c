"""`python -m inventory_service` serves; `... migrate` only migrates its database."""

import asyncio
import sys
from functools import partial
from pathlib import Path

from inventory_service.servicer import SERVICE_NAME, InventoryServicer
from inventory_service.settings import Settings
from proto.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from service_kit.database import connected
from service_kit.grpc_server import serving
from service_kit.lifecycle import run
from service_kit.migrations import migrate


async def migrate_database(settings: Settings, _stop: asyncio.Event) -> None:
    """Bring the database to the newest revision."""
    await migrate(settings.inventory_database_url, Path(__file__).with_name("migrations"))


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    await migrate_database(settings, stop)
    async with connected(settings.inventory_database_url, "inventory_service") as engine:
        add = partial(add_InventoryServiceServicer_to_server, InventoryServicer(engine))
        address = f"{settings.bind_host}:{settings.inventory_service_port}"
        async with serving(address, {SERVICE_NAME: add}):
            await stop.wait()


if __name__ == "__main__":
    sys.exit(run("inventory_service", Settings, serve, migrate=migrate_database))
