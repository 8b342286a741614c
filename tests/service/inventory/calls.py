"""The calls of these tests to the inventory service."""

import uuid
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from inventory_service.tables import metadata
from proto import inventory_pb2 as pb
from service_kit.errors import Code, ServiceError
from tests.support import database
from tests.support.services import Inventory, ask

UNKNOWN = 2**40
"""The id of no product."""

APPLIED = pb.STOCK_UPDATE_OUTCOME_APPLIED
INSUFFICIENT_STOCK = pb.STOCK_UPDATE_OUTCOME_INSUFFICIENT_STOCK
CANCELLED = pb.STOCK_UPDATE_OUTCOME_CANCELLED
UNKNOWN_PRODUCT = pb.STOCK_UPDATE_OUTCOME_UNKNOWN_PRODUCT


def refused(
    inventory: Inventory, code: Code, reason: str
) -> AbstractAsyncContextManager[pytest.ExceptionInfo[ServiceError]]:
    return database.refused(inventory.engine, metadata, code, reason)


async def create_product(inventory: Inventory, stock: int = 10, **fields: Any) -> pb.Product:
    product_id = fields.pop("product_id", None)
    product = pb.Product(**{"name": "Tea", "price_cents": 250, "stock": stock, **fields})
    request = pb.CreateProductRequest(product=product, product_id=product_id)
    return await ask(inventory.stub.CreateProduct, request)


async def get_stock(inventory: Inventory, product_id: int) -> int:
    request = pb.GetProductRequest(product_id=product_id)
    return (await ask(inventory.stub.GetProduct, request)).stock


async def list_movements(inventory: Inventory, product_id: int) -> list[pb.StockMovement]:
    """The newest first."""
    request = pb.ListStockMovementsRequest(product_id=product_id, page_size=100)
    return list((await ask(inventory.stub.ListStockMovements, request)).movements)


def new_order_id() -> str:
    return str(uuid.uuid4())


def deduct(order_id: str, *items: tuple[int, int]) -> pb.StockUpdate:
    return pb.StockUpdate(
        order_id=order_id,
        kind=pb.STOCK_UPDATE_KIND_DEDUCT,
        items=[pb.StockItem(product_id=product, quantity=quantity) for product, quantity in items],
    )


def restore(order_id: str) -> pb.StockUpdate:
    return pb.StockUpdate(order_id=order_id, kind=pb.STOCK_UPDATE_KIND_RESTORE)


async def update_stock(
    inventory: Inventory, *updates: pb.StockUpdate
) -> list[pb.StockUpdateResult]:
    request = pb.UpdateStockRequest(updates=updates)
    response = await ask(inventory.stub.UpdateStock, request)
    assert [(each.order_id, each.kind) for each in response.results] == [
        (each.order_id, each.kind) for each in updates
    ]
    return list(response.results)


async def outcomes(
    inventory: Inventory, *updates: pb.StockUpdate
) -> list["pb.StockUpdateOutcome.ValueType"]:
    return [result.outcome for result in await update_stock(inventory, *updates)]
