"""`python -m consumer_service` serves; `--help` lists the other commands."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from consumer_service.cli import commands
from consumer_service.clients import (
    InventoryClient,
    OrderClient,
    open_inventory_channel,
    open_order_channel,
)
from consumer_service.operations import handle_events
from consumer_service.settings import Settings
from consumer_service.subscriber import DRAIN_SECONDS, Subscriber
from service_kit.cli import service_cli
from service_kit.grpc.server import serve_grpc
from service_kit.lifecycle import background_task
from service_kit.rabbitmq.connection import keep_connected


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Consume until `stop` is set; broker and dependencies may come and go."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        inventory = InventoryClient(
            await enter(open_inventory_channel(settings.inventory_service_addr))
        )
        orders = OrderClient(await enter(open_order_channel(settings.order_service_addr)))
        handle = partial(handle_events, inventory, orders)
        subscriber = Subscriber(handle, settings.batch_max_items, stop)
        await enter(serve_grpc(f"{settings.bind_host}:{settings.consumer_service_port}", {}))
        broker = keep_connected(settings.rabbitmq_url, "consumer_service", subscriber.session)
        await enter(background_task(broker, stop, grace_seconds=DRAIN_SECONDS))
        await stop.wait()


app = service_cli(
    "consumer_service",
    Settings,
    serve,
    "Consumes order events from RabbitMQ, updates stock, settles orders.",
    commands,
)

if __name__ == "__main__":
    app(prog_name="python -m consumer_service")
