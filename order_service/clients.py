"""The services that order_service calls."""

import asyncio
from collections.abc import Collection, Sequence

import grpc

from order_service.domain import OutboxEvent, ProductSnapshot
from proto import inventory_pb2, producer_pb2, user_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.producer_pb2_grpc import ProducerServiceStub
from proto.user_pb2_grpc import UserServiceStub
from service_kit.errors import ServiceError
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.status import from_status

LOOKUP_SECONDS = 3.0
PUBLISH_SECONDS = 10.0
MAX_STOCK_CHECKS = 10_000
"""Products in one call: as many as inventory allows."""

_INVENTORY_LOOKUPS = ["CheckStock", "BatchGetReservations", "ListReservations"]


def open_user_channel(address: str) -> grpc.aio.Channel:
    """A channel to the user service."""
    return open_channel(address, "ecommerce.user.v1.UserService", ["BatchGetUsers"])


def open_inventory_channel(address: str) -> grpc.aio.Channel:
    """A channel to the inventory service."""
    return open_channel(address, "ecommerce.inventory.v1.InventoryService", _INVENTORY_LOOKUPS)


def open_producer_channel(address: str) -> grpc.aio.Channel:
    """A channel to the producer service, without retries: the relay has its own."""
    return open_channel(address, "ecommerce.producer.v1.ProducerService")


class UserClient:
    """What orders need to know about users."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = UserServiceStub(channel)

    async def active_users(self, user_ids: Collection[int]) -> set[int]:
        """The ids of these users that exist and may place orders."""
        request = user_pb2.BatchGetUsersRequest(user_ids=user_ids)
        response = await call(self._stub.BatchGetUsers, request, timeout=LOOKUP_SECONDS)
        return {user.id for user in response.users if user.active}


class InventoryClient:
    """What orders need to know about products."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = InventoryServiceStub(channel)

    async def products(self, product_ids: Collection[int]) -> dict[int, ProductSnapshot]:
        """Name, price and stock by product id; products that do not exist are left out."""
        items = [inventory_pb2.StockItem(product_id=product_id) for product_id in product_ids]
        requests = [
            inventory_pb2.CheckStockRequest(items=items[start : start + MAX_STOCK_CHECKS])
            for start in range(0, len(items), MAX_STOCK_CHECKS)
        ]
        responses = await asyncio.gather(
            *(call(self._stub.CheckStock, each, timeout=LOOKUP_SECONDS) for each in requests)
        )
        return {
            check.product_id: ProductSnapshot(check.name, check.price_cents, check.stock)
            for response in responses
            for check in response.checks
            if check.found
        }


class ProducerClient:
    """Publishes events through the producer service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ProducerServiceStub(channel)

    async def publish(self, events: Sequence[OutboxEvent]) -> list[ServiceError | None]:
        """For each event None once the broker has confirmed it, or why it has not.

        Raises the ServiceError of an unavailable producer: the outcome is then unknown.
        """
        request = producer_pb2.PublishEventsRequest(
            events=[
                producer_pb2.Event(
                    id=str(event.id),
                    type=event.type,
                    body=event.body,
                    request_id=event.context.request_id,
                    traceparent=event.context.traceparent,
                )
                for event in events
            ]
        )
        response = await call(self._stub.PublishEvents, request, timeout=PUBLISH_SECONDS)
        return [
            from_status(result.status) if result.status.code else None
            for result in response.results
        ]
