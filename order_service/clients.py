"""The neighbours of order_service."""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Collection, Sequence

import grpc

from order_service.events import OutboxEvent
from order_service.models import Movement, Reservation, Shortage, Snapshot
from proto import inventory_pb2, producer_pb2, user_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.producer_pb2_grpc import ProducerServiceStub
from proto.user_pb2_grpc import UserServiceStub
from service_kit.errors import ServiceError
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.status import from_status

LOOKUP_SECONDS = 3.0
PUBLISH_SECONDS = 10.0
AUDIT_SECONDS = 10.0
MAX_CHECKS = 10_000
"""So many products are looked up in one call: as many as inventory allows."""

_LOOKUPS = ["CheckStock", "BatchGetReservations", "ListReservations"]


def open_user_channel(address: str) -> grpc.aio.Channel:
    """A channel to the user service."""
    return open_channel(address, "ecommerce.user.v1.UserService", ["BatchGetUsers"])


def open_inventory_channel(address: str) -> grpc.aio.Channel:
    """A channel to the inventory service."""
    return open_channel(address, "ecommerce.inventory.v1.InventoryService", _LOOKUPS)


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


class ReservationClient:
    """What inventory decided for orders."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = InventoryServiceStub(channel)

    async def reservations(self, order_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Reservation]:
        """What was decided and moved, for those of these orders (1,000 at most) it was for."""
        request = inventory_pb2.BatchGetReservationsRequest(order_ids=map(str, order_ids))
        answer = await call(self._stub.BatchGetReservations, request, timeout=AUDIT_SECONDS)
        return {uuid.UUID(each.order_id): _reservation(each) for each in answer.reservations}

    async def holders(self) -> AsyncIterator[dict[uuid.UUID, Reservation]]:
        """The orders that hold stock, a page at a time."""
        request = inventory_pb2.ListReservationsRequest(
            page_size=1_000, state=inventory_pb2.RESERVATION_STATE_DEDUCTED
        )
        while True:
            answer = await call(self._stub.ListReservations, request, timeout=AUDIT_SECONDS)
            yield {uuid.UUID(each.order_id): _reservation(each) for each in answer.reservations}
            request.page_token = answer.next_page_token
            if not request.page_token:
                return


def _reservation(found: inventory_pb2.Reservation) -> Reservation:
    return Reservation(
        inventory_pb2.ReservationState.Name(found.state).removeprefix("RESERVATION_STATE_"),
        found.create_time.ToDatetime(dt.UTC),
        [Shortage(s.product_id, s.requested, s.available) for s in found.shortages],
        [
            Movement(
                inventory_pb2.StockMovementKind.Name(each.kind).removeprefix(
                    "STOCK_MOVEMENT_KIND_"
                ),
                each.product_id,
                each.delta,
                each.create_time.ToDatetime(dt.UTC),
            )
            for each in found.movements
        ],
    )


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
