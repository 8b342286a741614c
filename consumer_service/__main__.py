"""`python -m consumer_service` consumes."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial

from consumer_service.clients import (
    InventoryClient,
    OrderClient,
    open_inventory_channel,
    open_order_channel,
)
from consumer_service.operations import handle
from consumer_service.settings import Settings
from consumer_service.subscriber import DRAIN_SECONDS, Subscriber
from service_kit.background import running
from service_kit.grpc_server import serving
from service_kit.lifecycle import run
from service_kit.messaging import keep_connected


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Consume until `stop` is set; broker and neighbours may come and go."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        inventory = InventoryClient(
            await enter(open_inventory_channel(settings.inventory_service_addr))
        )
        orders = OrderClient(await enter(open_order_channel(settings.order_service_addr)))
        subscriber = Subscriber(partial(handle, inventory, orders), settings.batch_max_items, stop)
        await enter(serving(f"{settings.bind_host}:{settings.consumer_service_port}", {}))
        broker = keep_connected(settings.rabbitmq_url, "consumer_service", subscriber.session)
        await enter(running(broker, stop, grace_seconds=DRAIN_SECONDS))
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run("consumer_service", Settings, serve))
