"""Deliveries that repeat, and messages that cannot be handled."""

import json
import uuid

import pytest

from proto import producer_pb2
from proto.dead_letters import REASON_HEADER
from proto.events import INVENTORY_QUEUE
from proto.producer_pb2_grpc import ProducerServiceStub
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.status import from_status
from tests.support.api_client import ApiClient
from tests.support.queues import deliver
from tests.support.system import System
from tests.system import database, queues


async def test_an_event_delivered_again_changes_nothing(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=5)
    order = await customer.place_order(product, 2)
    created, _ = await queues.audited_events(
        system, order["id"], "order.created", "order.confirmed"
    )
    await system.wait_until_settled()
    before = await system.contents()

    for _ in range(3):
        await deliver(
            system.broker, created["payload"].encode(), created["properties"]["message_id"]
        )
    later = await customer.place_order(await admin.create_product())

    assert later["status"] == "CONFIRMED"  # so the deliveries before it were handled
    assert await database.stock_movements(system, product) == [("INITIAL", 5), ("DEDUCT", -2)]
    assert await database.order_status(system, order["id"]) == "CONFIRMED"
    events = await queues.audited_events(system, order["id"], "order.created", "order.confirmed")
    assert len(events) == 2
    after = await system.contents()
    assert after["inventory"]["reservations"][0] == before["inventory"]["reservations"][0] + 1
    assert after["orders"]["outbox"][0] == before["orders"]["outbox"][0] + 2


def _event(**changes: object) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/order-service",
        "type": "order.created",
        "subject": "an order",
        "datacontenttype": "application/json",
        "dataschema": "urn:ecommerce:order-events:v1",
        "data": {"order_id": str(uuid.uuid4()), "items": [{"product_id": 1, "quantity": 1}]},
    }
    return json.dumps({**event, **changes}).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not an event", "unreadable"),
        (b"\xff\xfe\x00", "unreadable"),
        (_event(data={"order_id": "none"}), "unreadable"),
        (_event(specversion="2.0"), "unknown_version"),
        (_event(dataschema="urn:ecommerce:order-events:v9"), "unknown_version"),
        (_event(type="order.forgotten"), "unknown_type"),
        (_event(), "unknown_order"),
        (
            _event(
                data={
                    "order_id": str(uuid.uuid4()),
                    "items": [{"product_id": 2**60, "quantity": 1}],
                }
            ),
            "unknown_product",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_message_that_cannot_be_handled_is_dead_lettered_with_its_reason(
    system: System, customer: ApiClient, admin: ApiClient, body: bytes, reason: str
) -> None:
    message_id = str(uuid.uuid4())
    before = await database.stock(system, 1)
    await deliver(system.broker, body, message_id, mine="kept")

    order = await customer.place_order(await admin.create_product())

    assert order["status"] == "CONFIRMED"
    letter = await queues.dead_letter(system, message_id)
    assert letter["properties"]["headers"][REASON_HEADER].startswith(f"{reason}: ")
    assert letter["properties"]["headers"]["mine"] == "kept"
    assert letter["routing_key"] == INVENTORY_QUEUE
    assert await database.stock(system, 1) == before
    assert message_id in system.log("consumer_service")


async def test_an_event_without_a_queue_is_refused_as_unroutable(system: System) -> None:
    async with open_channel(system.address("producer_service"), "") as opened:
        event = producer_pb2.Event(id=str(uuid.uuid4()), type="order.forgotten", body=_event())
        response = await call(
            ProducerServiceStub(opened).PublishEvents,
            producer_pb2.PublishEventsRequest(events=[event]),
            timeout=10,
        )
    (result,) = response.results
    refusal = from_status(result.status)
    assert (refusal.code.name, refusal.reason) == ("FAILED_PRECONDITION", "UNROUTABLE")
