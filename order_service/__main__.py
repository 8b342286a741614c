"""`python -m order_service` serves; `--help` lists the other commands."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from order_service.cli import commands
from order_service.clients import (
    InventoryClient,
    ProducerClient,
    UserClient,
    open_inventory_channel,
    open_producer_channel,
    open_user_channel,
)
from order_service.consistency.clients import ReservationClient
from order_service.consistency.monitor import ContinuousChecks
from order_service.operations import OrderDependencies
from order_service.outbox.pruner import Pruner
from order_service.outbox.relay import Relay
from order_service.republisher import Republisher
from order_service.servicer import SERVICE_NAME, OrderServicer
from order_service.settings import Settings
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
    """Serve, relay, republish, prune and check the data until `stop` is set."""
    await migrate(settings.order_database_url, "order_service")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        engine = await enter(open_engine(settings.order_database_url, "order_service"))
        users = await enter(open_user_channel(settings.user_service_addr))
        inventory = await enter(open_inventory_channel(settings.inventory_service_addr))
        producer = await enter(open_producer_channel(settings.producer_service_addr))
        wakeups, republish = Wakeups(), settings.order_republish_seconds
        relay = Relay(engine, ProducerClient(producer), wakeups, settings.batch_max_items)
        await enter(background_task(relay.run(), stop))
        await enter(background_task(Republisher(engine, wakeups, republish).run(), stop))
        await enter(background_task(Pruner(engine, settings.outbox_retention_seconds).run(), stop))
        stack.enter_context(serve_metrics(settings.bind_host, settings.order_service_metrics_port))
        if settings.order_consistency_seconds:
            continuous = ContinuousChecks(
                engine, ReservationClient(inventory), settings.order_consistency_grace_seconds
            )
            monitor = ConsistencyMonitor(continuous.checks(), settings.order_consistency_seconds)
            await enter(background_task(monitor.run(), stop))
        dependencies = OrderDependencies(
            engine, UserClient(users), InventoryClient(inventory), wakeups, republish
        )
        add = partial(add_OrderServiceServicer_to_server, OrderServicer(dependencies))
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
