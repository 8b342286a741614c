"""`python -m inventory_service` serves; `--help` lists the other commands."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from inventory_service.cli import commands
from inventory_service.consistency.monitor import ContinuousChecks
from inventory_service.servicer import SERVICE_NAME, InventoryServicer
from inventory_service.settings import Settings
from proto.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from service_kit.cli import service_cli
from service_kit.consistency import ConsistencyMonitor
from service_kit.grpc.server import serve_grpc
from service_kit.lifecycle import background_task
from service_kit.observability.metrics import serve_metrics
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve, and monitor the consistency of stock and ledger, until `stop` is set."""
    await migrate(settings.inventory_database_url, "inventory_service")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        engine = await enter(open_engine(settings.inventory_database_url, "inventory_service"))
        metrics = serve_metrics(settings.bind_host, settings.inventory_service_metrics_port)
        stack.enter_context(metrics)
        if settings.inventory_consistency_seconds:
            checks = ContinuousChecks(engine).checks()
            monitor = ConsistencyMonitor(checks, settings.inventory_consistency_seconds)
            await enter(background_task(monitor.run(), stop))
        add = partial(add_InventoryServiceServicer_to_server, InventoryServicer(engine))
        address = f"{settings.bind_host}:{settings.inventory_service_port}"
        await enter(serve_grpc(address, {SERVICE_NAME: add}))
        await stop.wait()


app = service_cli(
    "inventory_service",
    Settings,
    serve,
    "The catalogue, the stock, and the ledger of every stock movement.",
    commands,
)

if __name__ == "__main__":
    app(prog_name="python -m inventory_service")
