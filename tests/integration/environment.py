"""Events, queues and orders in a running environment: helpers of the integration tests."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aio_pika
import httpx
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import text
from uuid_utils.compat import uuid7

from proto import events as names
from proto import inventory_pb2 as stock_pb
from proto import order_pb2 as order_pb
from proto import producer_pb2 as producer_pb
from service_kit.errors import ServiceError
from service_kit.grpc.status import from_status
from tests.support.infrastructure import Broker
from tests.support.services import Service, ask, consumer_running
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from proto.inventory_pb2_grpc import InventoryServiceAsyncStub
    from proto.order_pb2_grpc import OrderServiceAsyncStub
    from proto.producer_pb2_grpc import ProducerServiceAsyncStub

Json = dict[str, Any]

SETTLE_SECONDS = 10.0


def envelope(
    type_: str, order_id: object, items: Mapping[int, object] | None = None, **changes: object
) -> Json:
    """A CloudEvents envelope of an order event; `changes` replace its attributes."""
    lines = [{"product_id": key, "quantity": value} for key, value in (items or {}).items()]
    return {
        "specversion": names.SPEC_VERSION,
        "id": str(uuid7()),
        "source": names.SOURCE,
        "type": type_,
        "subject": str(order_id),
        "time": "2026-11-23T08:00:00Z",
        "datacontenttype": "application/json",
        "dataschema": names.DATA_SCHEMA,
        "data": {"order_id": str(order_id), "items": lines},
        **changes,
    }


def event(type_: str = names.ORDER_CREATED, **changes: Any) -> producer_pb.Event:
    """A valid event for PublishEvents; `changes` replace its fields."""
    body = envelope(type_, uuid.uuid4(), {1: 1})
    fields = {"id": body["id"], "type": type_, "body": json.dumps(body).encode(), **changes}
    return producer_pb.Event(**fields)


async def publish(
    stub: "ProducerServiceAsyncStub", *events: producer_pb.Event
) -> list[ServiceError | None]:
    """Publish; for each event None if it was confirmed, or the error."""
    response = await ask(stub.PublishEvents, producer_pb.PublishEventsRequest(events=events))
    results = response.results
    assert [result.id for result in results] == [each.id for each in events]
    return [from_status(result.status) if result.status.code else None for result in results]


async def publish_probe(stub: "ProducerServiceAsyncStub") -> None:
    """Return once the producer's events are confirmed."""

    async def confirmed() -> bool:
        try:
            return await publish(stub, event(names.ORDER_CONFIRMED)) == [None]
        except ServiceError:
            return False

    await eventually(confirmed)


@asynccontextmanager
async def amqp_channel(broker: Broker) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel on its own connection, with publisher confirms."""
    async with await aio_pika.connect(broker.url) as connection:
        yield await connection.channel()


async def put(
    broker: Broker, *bodies: bytes | Json, routing_key: str = names.ORDER_CREATED, **headers: Any
) -> list[str]:
    """Publish bodies to the exchange without the producer; returns their message ids."""
    async with amqp_channel(broker) as channel:
        exchange = await channel.get_exchange(names.EXCHANGE)
        ids = []
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            message = aio_pika.Message(
                raw, message_id=str(uuid.uuid4()), headers=headers, delivery_mode=2
            )
            await exchange.publish(message, routing_key)
            ids.append(str(message.message_id))
        return ids


async def ready(broker: Broker, queue: str = names.INVENTORY_QUEUE) -> int:
    """How many messages of a queue are ready for a consumer, as of now."""
    async with amqp_channel(broker) as channel:
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def purge(broker: Broker, *queues: str) -> None:
    """Empty queues."""
    async with amqp_channel(broker) as channel:
        for queue in queues:
            await (await channel.get_queue(queue)).purge()


async def take_messages(broker: Broker, queue: str = names.INVENTORY_QUEUE) -> list[Json]:
    """Take every message out of a queue; their bodies."""
    bodies = []
    async with amqp_channel(broker) as channel:
        found = await channel.get_queue(queue)
        while (message := await found.get(no_ack=True, fail=False)) is not None:
            bodies.append(json.loads(message.body))
    return bodies


async def consumer_count(broker: Broker, queue: str = names.INVENTORY_QUEUE) -> int:
    """How many consumers a queue has, as of now."""
    async with amqp_channel(broker) as channel:
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.consumer_count or 0


async def queued_messages(broker: Broker, queue: str) -> dict[str, Json]:
    """The messages of a queue as the management page shows them, by message id."""
    return {str(each["properties"]["message_id"]): each for each in await peek(broker, queue)}


async def peek(broker: Broker, queue: str) -> list[Json]:
    """The messages of a queue as the management page shows them, oldest first."""
    return [dict(each) for each in await broker.peek(queue, count=10_000)]


async def dead_letter(broker: Broker, message_id: str) -> Json:
    """The dead letter with this message id, once it is in its queue."""

    async def find() -> Json | None:
        return (await queued_messages(broker, names.DEAD_LETTER_QUEUE)).get(message_id)

    found = await eventually(find)
    assert found is not None
    return found


@asynccontextmanager
async def management(broker: Broker) -> AsyncIterator["Management"]:
    """The management API for a virtual host."""
    async with broker.management() as api:
        yield Management(api, quote(broker.name, safe=""))


@dataclass(frozen=True)
class Management:
    """What an operator does on the management page."""

    api: httpx.AsyncClient
    vhost: str

    async def get(self, kind: str, name: str = "") -> Any:
        """A list, or one element of it; None if that does not exist."""
        response = await self.api.get(self._path(kind, name))
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        return response.raise_for_status().json()

    async def put(self, kind: str, name: str, **properties: Any) -> None:
        """Create or replace."""
        (await self.api.put(self._path(kind, name), json=properties)).raise_for_status()

    async def delete(self, kind: str, name: str) -> None:
        """Delete."""
        (await self.api.delete(self._path(kind, name))).raise_for_status()

    async def bindings(self) -> set[tuple[str, str, str]]:
        """(exchange, queue, routing key) of every binding."""
        return {
            (each["source"], each["destination"], each["routing_key"])
            for each in await self.get("bindings")
            if each["source"]
        }

    async def connections(self, service: str) -> list[str]:
        """The names of a service's connections to this virtual host."""
        found = (await self.api.get(f"/api/vhosts/{self.vhost}/connections")).raise_for_status()
        return [
            each["name"]
            for each in found.json()
            if each.get("client_properties", {}).get("connection_name") == service
        ]

    async def kill(self, service: str) -> None:
        """Close a service's connections."""
        found = await eventually(lambda: self.connections(service), within=15)
        for name in found:
            (await self.api.delete(f"/api/connections/{quote(name, safe='')}")).raise_for_status()

    def _path(self, kind: str, name: str) -> str:
        return f"/api/{kind}/{self.vhost}" + (f"/{name}" if name else "")


@dataclass(frozen=True)
class Environment:
    """Running users, inventory, producer and orders; each test starts its own consumers."""

    broker: Broker
    user_id: int
    users_address: str
    producer_address: str
    producer: "ProducerServiceAsyncStub"
    inventory: "Service[InventoryServiceAsyncStub]"
    orders: "Service[OrderServiceAsyncStub]"

    async def product(self, stock: int = 1000) -> int:
        """The id of a new product."""
        product = stock_pb.Product(name="thing", price_cents=250, stock=stock)
        request = stock_pb.CreateProductRequest(product=product)
        return (await ask(self.inventory.stub.CreateProduct, request)).id

    async def place(self, items: Mapping[int, int], times: int = 1) -> list[str]:
        """Place the same order `times` times; the ids."""
        request = order_pb.CreateOrderRequest(
            user_id=self.user_id,
            items=[
                order_pb.NewOrderItem(product_id=key, quantity=value)
                for key, value in items.items()
            ],
        )
        response = await ask(
            self.orders.stub.BatchCreateOrders,
            order_pb.BatchCreateOrdersRequest(requests=[request] * times),
        )
        assert not [each.error for each in response.results if each.HasField("error")]
        return [each.order.id for each in response.results]

    async def cancel(self, order_id: str) -> None:
        """Cancel an order."""
        await ask(self.orders.stub.CancelOrder, order_pb.CancelOrderRequest(order_id=order_id))

    async def order(self, order_id: str, wait: float = 0.0) -> order_pb.Order:
        """An order, once it is no longer PENDING, or after `wait` seconds."""
        duration = Duration()
        duration.FromNanoseconds(int(wait * 1e9))
        request = order_pb.GetOrderRequest(order_id=order_id, wait=duration)
        return await ask(self.orders.stub.GetOrder, request)

    async def statuses(self, order_ids: Sequence[str], wait: float = SETTLE_SECONDS) -> set[str]:
        """The statuses of orders once none is PENDING, or as they are after `wait` seconds."""
        found = [await self.order(order_id, wait) for order_id in order_ids]
        return {
            order_pb.OrderStatus.Name(each.status).removeprefix("ORDER_STATUS_") for each in found
        }

    async def stock(self, product_id: int) -> int:
        """A product's stock."""
        request = stock_pb.GetProductRequest(product_id=product_id)
        return (await ask(self.inventory.stub.GetProduct, request)).stock

    async def movements(self, product_id: int) -> list[int]:
        """The signed movements of a product in the ledger, oldest first."""
        request = stock_pb.ListStockMovementsRequest(product_id=product_id, page_size=100)
        response = await ask(self.inventory.stub.ListStockMovements, request)
        return [each.delta for each in reversed(response.movements)]

    @asynccontextmanager
    async def consuming(
        self, *, inventory: str = "", orders: str = "", broker_url: str = "", **settings: Any
    ) -> AsyncIterator[str]:
        """A consumer inside the block; other addresses than the usual ones lead through a proxy."""
        async with consumer_running(
            broker_url or self.broker.url,
            inventory_address=inventory or self.inventory.address,
            orders_address=orders or self.orders.address,
            **settings,
        ) as address:
            yield address

    async def released(self, order_id: str) -> None:
        """Return once a cancelled order holds no stock: nothing is outstanding for it."""
        query = text("SELECT next_republish_at IS NULL FROM orders WHERE id = :id")

        async def settled() -> bool:
            async with self.orders.engine.connect() as connection:
                return bool(await connection.scalar(query, {"id": uuid.UUID(order_id)}))

        await eventually(settled)

    async def published(self) -> None:
        """Return once every event in the outbox is in its queues."""
        query = text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")

        async def unsent() -> int:
            async with self.orders.engine.connect() as connection:
                return int(await connection.scalar(query) or 0)

        await eventually(unsent, lambda count: count == 0)

    async def queued(self, count: int) -> None:
        """Return once exactly this many messages are ready in inventory's queue."""
        await eventually(lambda: ready(self.broker), lambda found: found == count)
