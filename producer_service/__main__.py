"""`python -m producer_service` serves."""

import asyncio
import sys
from functools import partial

from producer_service.publisher import Publisher
from producer_service.servicer import SERVICE_NAME, ProducerServicer
from producer_service.settings import Settings
from proto.producer_pb2_grpc import add_ProducerServiceServicer_to_server
from service_kit.background import running
from service_kit.grpc_server import serving
from service_kit.lifecycle import run
from service_kit.messaging import keep_connected


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; the broker may come and go."""
    publisher = Publisher()
    broker = keep_connected(settings.rabbitmq_url, "producer_service", publisher.session)
    add = partial(add_ProducerServiceServicer_to_server, ProducerServicer(publisher))
    address = f"{settings.bind_host}:{settings.producer_service_port}"
    async with running(broker, stop), serving(address, {SERVICE_NAME: add}):
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run("producer_service", Settings, serve))
