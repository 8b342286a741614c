"""InventoryService over gRPC: decode, operate, encode."""

from collections.abc import Iterable
from typing import Any

from grpc.aio import ServicerContext
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service import operations
from inventory_service.domain import (
    Product,
    ProductSummary,
    ReservationRecord,
    StockMovement,
    StockUpdate,
    StockUpdateResult,
    sum_quantities,
)
from proto import inventory_pb2 as pb
from proto.inventory_pb2_grpc import InventoryServiceServicer
from proto.stock import ReservationState, Shortage, StockUpdateKind
from service_kit.errors import InvalidArgument
from service_kit.grpc.converters import parse_uuid, to_timestamp

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["InventoryService"].full_name

Context = ServicerContext[Any, Any]

_UPDATE_KINDS = {
    pb.StockUpdateKind.Value(f"STOCK_UPDATE_KIND_{kind}"): kind for kind in StockUpdateKind
}
_STATES = {
    pb.ReservationState.Value(f"RESERVATION_STATE_{state}"): state for state in ReservationState
}


class InventoryServicer(InventoryServiceServicer):
    """Serves the catalogue and the stock kept in `engine`'s database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def CreateProduct(self, request: pb.CreateProductRequest, context: Context) -> pb.Product:
        product = request.product
        return _product(
            await operations.create_product(
                self._engine,
                name=product.name,
                description=product.description,
                price_cents=product.price_cents,
                stock=product.stock,
                product_id=request.product_id if request.HasField("product_id") else None,
            )
        )

    async def GetProduct(self, request: pb.GetProductRequest, context: Context) -> pb.Product:
        return _product(await operations.get_product(self._engine, request.product_id))

    async def ListProducts(
        self, request: pb.ListProductsRequest, context: Context
    ) -> pb.ListProductsResponse:
        page, token = await operations.list_products(
            self._engine, size=request.page_size, token=request.page_token, query=request.query
        )
        return pb.ListProductsResponse(products=map(_product, page), next_page_token=token)

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: Context) -> pb.Product:
        fields = pb.Product.DESCRIPTOR.fields_by_name
        changes = {
            path: getattr(request.product, path) if path in fields else ""
            for path in request.update_mask.paths
        }
        return _product(await operations.update_product(self._engine, request.product.id, changes))

    async def CheckStock(
        self, request: pb.CheckStockRequest, context: Context
    ) -> pb.CheckStockResponse:
        found = await operations.check_stock(
            self._engine, [item.product_id for item in request.items]
        )
        return pb.CheckStockResponse(
            checks=[_check(item, found.get(item.product_id)) for item in request.items]
        )

    async def UpdateStock(
        self, request: pb.UpdateStockRequest, context: Context
    ) -> pb.UpdateStockResponse:
        updates = list(map(_update, request.updates))
        results = await operations.update_stock(
            self._engine, updates, validate_only=request.validate_only
        )
        return pb.UpdateStockResponse(
            results=[
                _result(update, result)
                for update, result in zip(request.updates, results, strict=True)
            ]
        )

    async def AdjustStock(
        self, request: pb.AdjustStockRequest, context: Context
    ) -> pb.AdjustStockResponse:
        stock = await operations.adjust_stock(
            self._engine, request.product_id, request.delta, request.reason
        )
        return pb.AdjustStockResponse(product_id=request.product_id, stock=stock)

    async def ListStockMovements(
        self, request: pb.ListStockMovementsRequest, context: Context
    ) -> pb.ListStockMovementsResponse:
        page, token = await operations.list_stock_movements(
            self._engine, request.product_id, size=request.page_size, token=request.page_token
        )
        return pb.ListStockMovementsResponse(movements=map(_movement, page), next_page_token=token)

    async def BatchGetReservations(
        self, request: pb.BatchGetReservationsRequest, context: Context
    ) -> pb.BatchGetReservationsResponse:
        order_ids = [parse_uuid(order_id, "order_id") for order_id in request.order_ids]
        found = await operations.get_reservations(self._engine, order_ids)
        return pb.BatchGetReservationsResponse(reservations=map(_reservation, found))

    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: Context
    ) -> pb.ListReservationsResponse:
        page, token = await operations.list_reservations(
            self._engine,
            state=_state(request.state),
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListReservationsResponse(
            reservations=map(_reservation, page), next_page_token=token
        )


def _update(update: pb.StockUpdate) -> StockUpdate:
    if update.kind not in _UPDATE_KINDS:
        raise InvalidArgument("INVALID_KIND", "Kind must be DEDUCT or RESTORE.")
    items = sum_quantities((item.product_id, item.quantity) for item in update.items)
    order_id = parse_uuid(update.order_id, "order_id")
    return StockUpdate(order_id, _UPDATE_KINDS[update.kind], items)


def _state(number: "pb.ReservationState.ValueType") -> ReservationState | None:
    if number and number not in _STATES:
        raise InvalidArgument("INVALID_STATE", "Unknown reservation state.")
    return _STATES.get(number)


def _result(update: pb.StockUpdate, result: StockUpdateResult) -> pb.StockUpdateResult:
    return pb.StockUpdateResult(
        order_id=update.order_id,
        kind=update.kind,
        outcome=pb.StockUpdateOutcome.Value(f"STOCK_UPDATE_OUTCOME_{result.outcome}"),
        shortages=_shortages(result.shortages),
        unknown_product_ids=result.unknown_product_ids,
    )


def _shortages(shortages: Iterable[Shortage]) -> list[pb.Shortage]:
    return [
        pb.Shortage(product_id=each.product_id, requested=each.requested, available=each.available)
        for each in shortages
    ]


def _check(item: pb.StockItem, product: ProductSummary | None) -> pb.StockCheck:
    if product is None:
        return pb.StockCheck(product_id=item.product_id)
    return pb.StockCheck(
        product_id=product.id,
        found=True,
        name=product.name,
        price_cents=product.price_cents,
        stock=product.stock,
        available=product.stock >= item.quantity,
    )


def _product(product: Product) -> pb.Product:
    return pb.Product(
        id=product.id,
        name=product.name,
        description=product.description,
        price_cents=product.price_cents,
        stock=product.stock,
        create_time=to_timestamp(product.created_at),
        update_time=to_timestamp(product.updated_at),
    )


def _movement(movement: StockMovement) -> pb.StockMovement:
    return pb.StockMovement(
        id=movement.id,
        product_id=movement.product_id,
        kind=pb.StockMovementKind.Value(f"STOCK_MOVEMENT_KIND_{movement.kind}"),
        delta=movement.delta,
        order_id=str(movement.order_id or ""),
        reason=movement.reason,
        create_time=to_timestamp(movement.created_at),
    )


def _reservation(record: ReservationRecord) -> pb.Reservation:
    return pb.Reservation(
        order_id=str(record.order_id),
        state=pb.ReservationState.Value(f"RESERVATION_STATE_{record.reservation.state}"),
        shortages=_shortages(record.reservation.shortages),
        create_time=to_timestamp(record.created_at),
        movements=map(_movement, record.movements),
    )
