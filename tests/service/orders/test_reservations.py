"""What the order service reads from inventory about its orders."""

import uuid

import pytest
from uuid_utils.compat import uuid7

from proto import inventory_pb2 as stock_pb
from service_kit.errors import ServiceError
from tests.service.orders.shop import Shop, one_of_each
from tests.support.services import ask


async def test_reservations_are_read_by_order_and_page_by_page(shop: Shop) -> None:
    placed = await one_of_each(shop)
    stub = shop.inventory.stub
    request = stock_pb.BatchGetReservationsRequest(order_ids=[*placed.values(), str(uuid7())])
    response = await ask(stub.BatchGetReservations, request)
    found = {each.order_id: each for each in response.reservations}
    assert found.keys() == set(placed.values()) - {placed["pending"]}
    assert found[placed["rejected"]].shortages[0].requested == 900
    deltas = [each.delta for each in found[placed["returned"]].movements]
    assert deltas == [-2, 2]
    listed: list[str] = []
    page = stock_pb.ListReservationsRequest(page_size=2)
    while not listed or page.page_token:
        listing = await ask(stub.ListReservations, page)
        listed += [each.order_id for each in listing.reservations]
        page.page_token = listing.next_page_token
    assert set(listed) > found.keys()
    assert listed == sorted(listed)
    page = stock_pb.ListReservationsRequest(state=stock_pb.RESERVATION_STATE_REJECTED)
    (only,) = (await ask(stub.ListReservations, page)).reservations
    assert only.order_id == placed["rejected"]


async def test_an_invalid_request_for_reservations_is_refused(shop: Shop) -> None:
    nobody = str(uuid.UUID(int=0))
    for order_ids, reason in ((["x"], "INVALID_ORDER_ID"), ([nobody] * 1001, "TOO_MANY_ITEMS")):
        request = stock_pb.BatchGetReservationsRequest(order_ids=order_ids)
        with pytest.raises(ServiceError) as refusal:
            await ask(shop.inventory.stub.BatchGetReservations, request)
        assert refusal.value.reason == reason
    for listing, reason in (
        (stock_pb.ListReservationsRequest(page_token="x"), "INVALID_PAGE_TOKEN"),
        (stock_pb.ListReservationsRequest(page_size=-1), "INVALID_PAGE_SIZE"),
    ):
        with pytest.raises(ServiceError) as refusal:
            await ask(shop.inventory.stub.ListReservations, listing)
        assert refusal.value.reason == reason
