"""Asks inventory what it decided for orders."""

import uuid
from collections.abc import AsyncIterator, Collection

import grpc

from order_service.consistency.domain import Reservation, StockMovement
from proto import inventory_pb2 as pb
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.stock import ReservationState, Shortage, StockMovementKind
from service_kit.grpc.client import call
from service_kit.grpc.converters import from_timestamp

CALL_SECONDS = 10.0
_PAGE_SIZE = 1_000


class ReservationClient:
    """The reservations of orders, through a channel to the inventory service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = InventoryServiceStub(channel)

    async def reservations(self, order_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Reservation]:
        """The reservations of these orders (at most 1,000) with their movements.

        Orders without one are left out.
        """
        request = pb.BatchGetReservationsRequest(order_ids=map(str, order_ids))
        response = await call(self._stub.BatchGetReservations, request, timeout=CALL_SECONDS)
        return {uuid.UUID(each.order_id): _reservation(each) for each in response.reservations}

    async def deducted(self) -> AsyncIterator[dict[uuid.UUID, Reservation]]:
        """The orders for which stock is deducted now, page by page, without movements."""
        request = pb.ListReservationsRequest(
            page_size=_PAGE_SIZE, state=pb.RESERVATION_STATE_DEDUCTED
        )
        while True:
            response = await call(self._stub.ListReservations, request, timeout=CALL_SECONDS)
            yield {uuid.UUID(each.order_id): _reservation(each) for each in response.reservations}
            request.page_token = response.next_page_token
            if not request.page_token:
                return


def _reservation(message: pb.Reservation) -> Reservation:
    state = pb.ReservationState.Name(message.state).removeprefix("RESERVATION_STATE_")
    return Reservation(
        ReservationState(state),
        from_timestamp(message.create_time),
        [Shortage.from_message(each) for each in message.shortages],
        [_movement(each) for each in message.movements],
    )


def _movement(message: pb.StockMovement) -> StockMovement:
    kind = pb.StockMovementKind.Name(message.kind).removeprefix("STOCK_MOVEMENT_KIND_")
    return StockMovement(
        StockMovementKind(kind),
        message.product_id,
        message.delta,
        from_timestamp(message.create_time),
    )
