"""The services inside the test process: the real `serve` of each, on its own port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy.ext.asyncio import AsyncEngine

import consumer_service.__main__ as consumer
import inventory_service.__main__ as inventory
import order_service.__main__ as orders
import producer_service.__main__ as producer
import user_service.__main__ as users
from consumer_service.settings import Settings as ConsumerSettings
from inventory_service.settings import Settings as InventorySettings
from order_service.settings import Settings as OrderSettings
from producer_service.settings import Settings as ProducerSettings
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.order_pb2_grpc import OrderServiceStub
from proto.producer_pb2_grpc import ProducerServiceStub
from proto.user_pb2_grpc import UserServiceStub
from service_kit.grpc.client import call, open_channel
from service_kit.postgres.engine import open_engine
from service_kit.settings import ServiceSettings
from tests.support.waiting import free_port
from user_service.settings import Settings as UserSettings

if TYPE_CHECKING:  # exist for type checkers only
    from proto.inventory_pb2_grpc import InventoryServiceAsyncStub
    from proto.order_pb2_grpc import OrderServiceAsyncStub
    from proto.producer_pb2_grpc import ProducerServiceAsyncStub
    from proto.user_pb2_grpc import UserServiceAsyncStub

START_SECONDS = 30.0
STOP_SECONDS = 15.0
CALL_SECONDS = 20.0

Request = TypeVar("Request")
Response = TypeVar("Response")
Stub = TypeVar("Stub")
S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class Service(Generic[Stub]):
    """A running service: its address, its stub, and an engine on its database."""

    address: str
    stub: Stub
    engine: AsyncEngine


if TYPE_CHECKING:
    Inventory = Service[InventoryServiceAsyncStub]
    Orders = Service[OrderServiceAsyncStub]
    Users = Service[UserServiceAsyncStub]
else:
    Inventory = Orders = Users = Service


async def ask(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
) -> Response:
    """Call as the services call each other; raises the ServiceError that is returned."""
    return await call(method, request, timeout=CALL_SECONDS)


@asynccontextmanager
async def serving(
    serve: Callable[[S, asyncio.Event], Coroutine[Any, Any, None]], settings: S, address: str
) -> AsyncIterator[None]:
    """Run a service's `serve` inside the block, from when it is healthy; then stop it."""
    stop = asyncio.Event()
    service = asyncio.create_task(serve(settings, stop))
    try:
        healthy = asyncio.create_task(_healthy(address))
        await asyncio.wait({service, healthy}, return_when=asyncio.FIRST_COMPLETED)
        if service.done():
            healthy.cancel()
            await service
        await healthy
        yield
    finally:
        stop.set()
        async with asyncio.timeout(STOP_SECONDS):
            await service


async def _healthy(address: str) -> None:
    async with grpc.aio.insecure_channel(
        address, options=(("grpc.max_reconnect_backoff_ms", 100),)
    ) as channel:
        check: Awaitable[health_pb2.HealthCheckResponse] = health_pb2_grpc.HealthStub(
            channel
        ).Check(health_pb2.HealthCheckRequest(), timeout=START_SECONDS, wait_for_ready=True)
        assert (await check).status == health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def _reached(
    address: str, stub: Callable[[grpc.aio.Channel], Stub], database_url: str
) -> AsyncIterator[Service[Stub]]:
    async with (
        open_channel(address, "") as channel,
        open_engine(database_url, "tests", pool_size=4) as engine,
    ):
        yield Service(address, stub(channel), engine)


@asynccontextmanager
async def inventory_running(
    database_url: str, port: int = 0, **settings: Any
) -> AsyncIterator[Inventory]:
    """The inventory service; `port` 0 means any; `settings` are more of its settings.

    Without its consistency checks, unless they are set: they write balances at any time.
    """
    port = port or free_port()
    loaded = InventorySettings(
        inventory_service_port=port,
        inventory_database_url=database_url,
        bind_host="127.0.0.1",
        **({"inventory_consistency_seconds": 0} | settings),
    )
    address = f"127.0.0.1:{port}"
    async with (
        serving(inventory.serve, loaded, address),
        _reached(address, InventoryServiceStub, database_url) as service,
    ):
        yield service


@asynccontextmanager
async def users_running(database_url: str, port: int = 0, **settings: Any) -> AsyncIterator[Users]:
    """The user service, with hashes that cost little; `settings` are more of its settings."""
    port = port or free_port()
    cheap = {"password_hash_memory_cost": 8, "password_hash_time_cost": 1}
    loaded = UserSettings(
        user_service_port=port,
        user_database_url=database_url,
        bind_host="127.0.0.1",
        **(cheap | settings),
    )
    address = f"127.0.0.1:{port}"
    async with (
        serving(users.serve, loaded, address),
        _reached(address, UserServiceStub, database_url) as service,
    ):
        yield service


@asynccontextmanager
async def orders_running(
    database_url: str,
    *,
    users_address: str,
    inventory_address: str,
    producer_address: str = "",
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[Orders]:
    """The order service with all its tasks; without a producer its outbox only fills."""
    port = port or free_port()
    loaded = OrderSettings(
        order_service_port=port,
        order_database_url=database_url,
        bind_host="127.0.0.1",
        user_service_addr=users_address,
        inventory_service_addr=inventory_address,
        producer_service_addr=producer_address or f"127.0.0.1:{free_port()}",
        **settings,
    )
    address = f"127.0.0.1:{port}"
    async with (
        serving(orders.serve, loaded, address),
        _reached(address, OrderServiceStub, database_url) as service,
    ):
        yield service


@asynccontextmanager
async def producer_running(
    rabbitmq_url: str, port: int = 0
) -> AsyncIterator[tuple[str, "ProducerServiceAsyncStub"]]:
    """The producer service: its address and its stub."""
    port = port or free_port()
    settings = ProducerSettings(
        producer_service_port=port, rabbitmq_url=rabbitmq_url, bind_host="127.0.0.1"
    )
    address = f"127.0.0.1:{port}"
    async with (
        serving(producer.serve, settings, address),
        open_channel(address, "") as channel,
    ):
        yield address, ProducerServiceStub(channel)


@asynccontextmanager
async def consumer_running(
    rabbitmq_url: str,
    *,
    inventory_address: str,
    orders_address: str,
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[str]:
    """The consumer service: the address of its health service."""
    port = port or free_port()
    loaded = ConsumerSettings(
        consumer_service_port=port,
        rabbitmq_url=rabbitmq_url,
        bind_host="127.0.0.1",
        inventory_service_addr=inventory_address,
        order_service_addr=orders_address,
        **settings,
    )
    address = f"127.0.0.1:{port}"
    async with serving(consumer.serve, loaded, address):
        yield address
