"""`python -m order_service` serves; `--help` lists the other commands."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from order_service.audit import Books
from order_service.auditor import Auditor
from order_service.cli import commands
from order_service.clients import (
    InventoryClient,
    ProducerClient,
    ReservationClient,
    UserClient,
    open_inventory_channel,
    open_producer_channel,
    open_user_channel,
)
from order_service.operations import Shop
from order_service.relay import Relay
from order_service.servicer import SERVICE_NAME, OrderServicer
from order_service.settings import Settings
from order_service.sweeper import Sweeper
from order_service.wakeups import Wakeups
from proto.order_pb2_grpc import add_OrderServiceServicer_to_server
from service_kit.cli import service_cli
from service_kit.consistency import ConsistencyMonitor
from service_kit.grpc.server import serve_grpc
from service_kit.lifecycle import background_task
from service_kit.observability.metrics import serve_metrics
from service_kit.postgres.engine import open_engine
from service_kit.postgres.migrations import migrate


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve, relay, sweep and audit until `stop` is set."""
    await migrate(settings.order_database_url, "order_service")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        engine = await enter(open_engine(settings.order_database_url, "order_service"))
        users = UserClient(await enter(open_user_channel(settings.user_service_addr)))
        stock = await enter(open_inventory_channel(settings.inventory_service_addr))
        producer = ProducerClient(
            await enter(open_producer_channel(settings.producer_service_addr))
        )
        wakeups = Wakeups()
        reoffer = settings.order_reoffer_seconds
        relay = Relay(engine, producer, wakeups, settings.batch_max_items)
        sweeper = Sweeper(engine, wakeups, reoffer, settings.outbox_retention_seconds)
        await enter(background_task(relay.run(), stop))
        await enter(background_task(sweeper.run(), stop))
        metrics = serve_metrics(settings.bind_host, settings.order_service_metrics_port)
        stack.enter_context(metrics)
        if settings.order_audit_seconds:
            books = Books(engine, ReservationClient(stock))
            auditor = Auditor(books, settings.order_audit_grace_seconds)
            watch = ConsistencyMonitor(auditor.looks(), settings.order_audit_seconds)
            await enter(background_task(watch.run(), stop))
        shop = Shop(engine, users, InventoryClient(stock), wakeups, reoffer)
        add = partial(add_OrderServiceServicer_to_server, OrderServicer(shop))
        address = f"{settings.bind_host}:{settings.order_service_port}"
        await enter(serve_grpc(address, {SERVICE_NAME: add}))
        await stop.wait()


app = service_cli(
    "order_service",
    Settings,
    serve,
    "Orders: accepted, stored with their events, settled by what inventory decided.",
    commands,
)

if __name__ == "__main__":
    app(prog_name="python -m order_service")
