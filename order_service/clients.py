"""The neighbours of order_service."""

import asyncio
from collections.abc import Collection, Sequence

import grpc

from order_service.events import OutboxEvent
from order_service.models import Snapshot
from proto import inventory_pb2, producer_pb2, user_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.producer_pb2_grpc import ProducerServiceStub
from proto.user_pb2_grpc import UserServiceStub
from service_kit.errors import ServiceError
from service_kit.grpc_client import call, open_channel
from service_kit.grpc_status import from_status

LOOKUP_SECONDS = 3.0
PUBLISH_SECONDS = 10.0
MAX_CHECKS = 10_000
"""So many products are looked up in one call: as many as inventory allows."""


def open_user_channel(address: str) -> grpc.aio.Channel:
    """A channel to the user service."""
    return open_channel(address, "ecommerce.user.v1.UserService", ["BatchGetUsers"])


def open_inventory_channel(address: str) -> grpc.aio.Channel:
    """A channel to the inventory service."""
    return open_channel(address, "ecommerce.inventory.v1.InventoryService", ["CheckStock"])


def open_producer_channel(address: str) -> grpc.aio.Channel:
    """A channel to the producer service, without retries: the relay has its own."""
    return open_channel(address, "ecommerce.producer.v1.ProducerService")


class UserClient:
    """What orders need to know of users."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = UserServiceStub(channel)

    async def active_users(self, user_ids: Collection[int]) -> set[int]:
        """Those of these users that exist and may order."""
        request = user_pb2.BatchGetUsersRequest(user_ids=user_ids)
        answer = await call(self._stub.BatchGetUsers, request, timeout=LOOKUP_SECONDS)
        return {user.id for user in answer.users if user.active}


class InventoryClient:
    """What orders need to know of products."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = InventoryServiceStub(channel)

    async def snapshots(self, product_ids: Collection[int]) -> dict[int, Snapshot]:
        """Name, price and stock of those of these products that exist."""
        items = [inventory_pb2.StockItem(product_id=product_id) for product_id in product_ids]
        requests = [
            inventory_pb2.CheckStockRequest(items=items[start : start + MAX_CHECKS])
            for start in range(0, len(items), MAX_CHECKS)
        ]
        answers = await asyncio.gather(
            *(call(self._stub.CheckStock, each, timeout=LOOKUP_SECONDS) for each in requests)
        )
        return {
            check.product_id: Snapshot(check.name, check.price_cents, check.stock)
            for answer in answers
            for check in answer.checks
            if check.found
        }


class ProducerClient:
    """The way of events to the broker."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ProducerServiceStub(channel)

    async def publish(self, events: Sequence[OutboxEvent]) -> list[ServiceError | None]:
        """Publish a batch; for each event None once the broker has confirmed it, or why not."""
        request = producer_pb2.PublishEventsRequest(
            events=[
                producer_pb2.Event(
                    id=str(event.id),
                    type=event.type,
                    body=event.body,
                    request_id=event.caller.request_id,
                    traceparent=event.caller.traceparent,
                )
                for event in events
            ]
        )
        answer = await call(self._stub.PublishEvents, request, timeout=PUBLISH_SECONDS)
        return [
            from_status(result.status) if result.status.code else None for result in answer.results
        ]
