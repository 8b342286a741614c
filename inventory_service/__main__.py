"""`python -m inventory_service` serves; `... migrate` only migrates its database."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from inventory_service.auditor import Auditor
from inventory_service.servicer import SERVICE_NAME, InventoryServicer
from inventory_service.settings import Settings
from proto.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from service_kit.audit import Watch
from service_kit.background import running
from service_kit.database import connected
from service_kit.grpc_server import serving
from service_kit.lifecycle import run
from service_kit.metrics_server import serving_metrics
from service_kit.migrations import migrate


async def migrate_database(settings: Settings, _stop: asyncio.Event) -> None:
    """Bring the database to the newest revision."""
    await migrate(settings.inventory_database_url, Path(__file__).with_name("migrations"))


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve and audit until `stop` is set."""
    await migrate_database(settings, stop)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        engine = await enter(connected(settings.inventory_database_url, "inventory_service"))
        metrics = serving_metrics(settings.bind_host, settings.inventory_service_metrics_port)
        stack.enter_context(metrics)
        if settings.inventory_audit_seconds:
            watch = Watch(Auditor(engine).looks(), settings.inventory_audit_seconds)
            await enter(running(watch.run(), stop))
        add = partial(add_InventoryServiceServicer_to_server, InventoryServicer(engine))
        address = f"{settings.bind_host}:{settings.inventory_service_port}"
        await enter(serving(address, {SERVICE_NAME: add}))
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run("inventory_service", Settings, serve, migrate=migrate_database))
