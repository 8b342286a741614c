"""`python -m order_service` serves; `python -m order_service migrate` only migrates."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from order_service.audit import Books
from order_service.auditor import Auditor
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
from service_kit.audit import Watch
from service_kit.background import running
from service_kit.database import connected
from service_kit.grpc_server import serving
from service_kit.lifecycle import run
from service_kit.metrics_server import serving_metrics
from service_kit.migrations import migrate


async def migrate_database(settings: Settings, _stop: asyncio.Event) -> None:
    """Bring the database to the newest revision."""
    await migrate(settings.order_database_url, Path(__file__).with_name("migrations"))


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve, relay, sweep and audit until `stop` is set."""
    await migrate_database(settings, stop)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        engine = await enter(connected(settings.order_database_url, "order_service"))
        users = UserClient(await enter(open_user_channel(settings.user_service_addr)))
        stock = await enter(open_inventory_channel(settings.inventory_service_addr))
        producer = ProducerClient(
            await enter(open_producer_channel(settings.producer_service_addr))
        )
        wakeups = Wakeups()
        reoffer = settings.order_reoffer_seconds
        relay = Relay(engine, producer, wakeups, settings.batch_max_items)
        sweeper = Sweeper(engine, wakeups, reoffer, settings.outbox_retention_seconds)
        await enter(running(relay.run(), stop))
        await enter(running(sweeper.run(), stop))
        metrics = serving_metrics(settings.bind_host, settings.order_service_metrics_port)
        stack.enter_context(metrics)
        if settings.order_audit_seconds:
            books = Books(engine, ReservationClient(stock))
            auditor = Auditor(books, settings.order_audit_grace_seconds)
            watch = Watch(auditor.looks(), settings.order_audit_seconds)
            await enter(running(watch.run(), stop))
        shop = Shop(engine, users, InventoryClient(stock), wakeups, reoffer)
        add = partial(add_OrderServiceServicer_to_server, OrderServicer(shop))
        address = f"{settings.bind_host}:{settings.order_service_port}"
        await enter(serving(address, {SERVICE_NAME: add}))
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run("order_service", Settings, serve, migrate=migrate_database))
