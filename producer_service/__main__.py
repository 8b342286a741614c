"""`python -m producer_service` serves."""

import asyncio
from functools import partial

from producer_service.publisher import Publisher
from producer_service.servicer import SERVICE_NAME, ProducerServicer
from producer_service.settings import Settings
from proto.producer_pb2_grpc import add_ProducerServiceServicer_to_server
from service_kit.cli import service_cli
from service_kit.grpc.server import serve_grpc
from service_kit.lifecycle import background_task
from service_kit.rabbitmq.connection import keep_connected


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; the broker may come and go."""
    publisher = Publisher()
    broker = keep_connected(settings.rabbitmq_url, "producer_service", publisher.session)
    add = partial(add_ProducerServiceServicer_to_server, ProducerServicer(publisher))
    address = f"{settings.bind_host}:{settings.producer_service_port}"
    async with background_task(broker, stop), serve_grpc(address, {SERVICE_NAME: add}):
        await stop.wait()


app = service_cli(
    "producer_service",
    Settings,
    serve,
    "Publishes events to RabbitMQ and responds after the broker's confirm.",
)

if __name__ == "__main__":
    app(prog_name="python -m producer_service")
