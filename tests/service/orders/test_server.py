"""Health, migrations and start of the order service."""

import pytest

from order_service.tables import metadata
from service_kit.postgres.engine import open_engine
from tests.support.database import differences, migrated_by_replicas, schema
from tests.support.infrastructure import Infrastructure
from tests.support.probes import described, health, reflected
from tests.support.services import Orders, orders_running
from tests.support.waiting import free_port

NAME = "ecommerce.order.v1.OrderService"


async def test_health_and_reflection_are_served(orders: Orders) -> None:
    assert await health(orders.address) == "SERVING"
    assert await health(orders.address, NAME) == "SERVING"
    assert {NAME, "grpc.health.v1.Health"} <= await reflected(orders.address)
    assert await described(orders.address, NAME)


async def test_the_migrations_create_what_the_tables_describe(
    orders: Orders, infrastructure: Infrastructure
) -> None:
    assert await differences(orders.engine, metadata) == []
    async with infrastructure.database() as url, open_engine(url, "tests") as engine:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        assert await schema(orders.engine) == await schema(engine)


async def test_replicas_may_migrate_at_the_same_time(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as url:
        assert await migrated_by_replicas("order_service", url) == [0, 0, 0]
        async with open_engine(url, "tests") as engine:
            assert await differences(engine, metadata) == []


async def test_a_port_in_use_is_reported_in_one_line(
    infrastructure: Infrastructure, orders: Orders
) -> None:
    taken = int(orders.address.rpartition(":")[2])
    async with infrastructure.database() as url:
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{taken}"):
            async with orders_running(
                url,
                users_address=f"127.0.0.1:{free_port()}",
                inventory_address=f"127.0.0.1:{free_port()}",
                port=taken,
            ):
                pass
