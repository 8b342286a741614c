"""What the database enforces on its own, the migrations, and the gRPC server."""

import asyncio
import uuid

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from inventory_service.tables import metadata, products, stock_movements
from proto import inventory_pb2 as pb
from service_kit.errors import DeadlineExceeded
from service_kit.grpc.client import call
from service_kit.grpc.health import is_serving
from service_kit.postgres.engine import open_engine
from tests.service.inventory.calls import (
    APPLIED,
    create_product,
    deduct,
    get_stock,
    new_order_id,
    outcomes,
    restore,
)
from tests.support.database import differences, migrated_by_replicas, schema
from tests.support.infrastructure import Infrastructure
from tests.support.probes import described, health, reflected
from tests.support.services import Inventory
from tests.support.waiting import eventually, free_port

NAME = "ecommerce.inventory.v1.InventoryService"

pytestmark = pytest.mark.usefixtures("ledger_adds_up")


async def test_the_database_refuses_negative_stock(
    inventory: Inventory,
) -> None:
    product = await create_product(inventory, 5)
    statement = update(products).where(products.c.id == product.id).values(stock=-1)
    with pytest.raises(IntegrityError, match="ck_products_stock_not_negative"):
        async with inventory.engine.begin() as connection:
            await connection.execute(statement)


@pytest.mark.parametrize("kind", ["DEDUCT", "RESTORE"])
async def test_the_database_refuses_a_movement_that_its_order_already_made(
    inventory: Inventory, kind: str
) -> None:
    product, order_id = await create_product(inventory, 5), new_order_id()
    updates = [deduct(order_id, (product.id, 2)), restore(order_id)]
    assert await outcomes(inventory, *updates) == [APPLIED, APPLIED]
    again = insert(stock_movements).values(
        product_id=product.id, kind=kind, delta=1, order_id=uuid.UUID(order_id)
    )
    with pytest.raises(IntegrityError, match="uq_stock_movements_order_id_product_id_kind"):
        async with inventory.engine.begin() as connection:
            await connection.execute(again)


async def test_a_call_whose_deadline_passes_changes_nothing(inventory: Inventory) -> None:
    product = await create_product(inventory, 5)
    movements = select(stock_movements.c.id).where(stock_movements.c.product_id == product.id)
    lock = select(products).where(products.c.id == product.id).with_for_update()
    async with inventory.engine.begin() as connection:
        await connection.execute(lock)
        request = pb.AdjustStockRequest(product_id=product.id, delta=-1, reason="late")
        with pytest.raises(DeadlineExceeded):
            await call(inventory.stub.AdjustStock, request, timeout=0.3)
        await eventually(lambda: _no_session_waits_for_a_lock(inventory), within=5)
    async with inventory.engine.connect() as connection:
        assert len((await connection.execute(movements)).all()) == 1
    assert await get_stock(inventory, product.id) == 5


async def _no_session_waits_for_a_lock(inventory: Inventory) -> bool:
    statement = text("SELECT count(*) = 0 FROM pg_locks WHERE NOT granted")
    async with inventory.engine.connect() as connection:
        return bool(await connection.scalar(statement))


async def test_health_and_reflection_are_served(inventory: Inventory) -> None:
    assert await health(inventory.address) == "SERVING"
    assert await health(inventory.address, NAME) == "SERVING"
    assert {NAME, "grpc.health.v1.Health"} <= await reflected(inventory.address)
    assert await described(inventory.address, NAME)
    assert await asyncio.to_thread(is_serving, inventory.address)
    assert not await asyncio.to_thread(is_serving, f"127.0.0.1:{free_port()}", 0.5)


async def test_the_migrations_create_what_the_tables_describe(
    inventory: Inventory, infrastructure: Infrastructure
) -> None:
    assert await differences(inventory.engine, metadata) == []
    async with infrastructure.database() as url, open_engine(url, "tests") as engine:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        assert await schema(inventory.engine) == await schema(engine)


async def test_replicas_may_migrate_at_the_same_time(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as url:
        assert await migrated_by_replicas("inventory_service", url) == [0, 0, 0]
        async with open_engine(url, "tests") as engine:
            assert await differences(engine, metadata) == []
