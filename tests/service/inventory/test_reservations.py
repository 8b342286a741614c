"""What was decided for orders: looked up by order, and listed."""

import pytest

from proto import inventory_pb2 as pb
from service_kit.errors import Code
from tests.service.inventory.calls import (
    create_product,
    deduct,
    new_order_id,
    refused,
    restore,
    update_stock,
)
from tests.support.services import Inventory, ask

pytestmark = pytest.mark.usefixtures("ledger_adds_up")


async def get_reservations(inventory: Inventory, *order_ids: str) -> dict[str, pb.Reservation]:
    request = pb.BatchGetReservationsRequest(order_ids=order_ids)
    response = await ask(inventory.stub.BatchGetReservations, request)
    found = {reservation.order_id: reservation for reservation in response.reservations}
    assert len(found) == len(response.reservations)
    return found


async def test_reservations_are_returned_with_their_movements(
    inventory: Inventory,
) -> None:
    one, other = await create_product(inventory, 10), await create_product(inventory, 10)
    deducted, restored, rejected, cancelled = (new_order_id() for _ in range(4))
    await update_stock(
        inventory,
        deduct(deducted, (one.id, 2), (other.id, 3)),
        deduct(restored, (one.id, 4)),
        deduct(rejected, (one.id, 5)),
    )
    await update_stock(inventory, restore(restored), restore(cancelled))
    found = await get_reservations(
        inventory, deducted, restored, rejected, cancelled, new_order_id(), deducted
    )
    returned = {
        order_id: (
            pb.ReservationState.Name(each.state).removeprefix("RESERVATION_STATE_"),
            [(movement.product_id, movement.delta) for movement in each.movements],
            [(short.product_id, short.requested, short.available) for short in each.shortages],
        )
        for order_id, each in found.items()
    }
    assert returned == {
        deducted: ("DEDUCTED", [(one.id, -2), (other.id, -3)], []),
        restored: ("RESTORED", [(one.id, -4), (one.id, 4)], []),
        rejected: ("REJECTED", [], [(one.id, 5, 4)]),
        cancelled: ("CANCELLED", [], []),
    }
    assert found[deducted].create_time.seconds > 1_700_000_000
    assert await get_reservations(inventory) == {}


async def test_a_thousand_reservations_at_most_are_looked_up_in_one_call(
    inventory: Inventory,
) -> None:
    orders = [new_order_id() for _ in range(1001)]
    assert await get_reservations(inventory, *orders[:-1]) == {}
    async with refused(inventory, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await get_reservations(inventory, *orders)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_ORDER_ID"):
        await get_reservations(inventory, "7")


async def list_reservations(
    inventory: Inventory, page_size: int = 0, page_token: str = "", state: int = 0
) -> pb.ListReservationsResponse:
    request = pb.ListReservationsRequest(
        page_size=page_size,
        page_token=page_token,
        state=state,  # type: ignore[arg-type] # also numbers that are no state
    )
    return await ask(inventory.stub.ListReservations, request)


@pytest.mark.parametrize("state", [0, pb.RESERVATION_STATE_REJECTED])
async def test_pages_list_every_reservation_once_by_ascending_order_id(
    inventory: Inventory, state: int
) -> None:
    product = await create_product(inventory, 5)
    taken, short = [{new_order_id() for _ in range(5)} for _ in range(2)]
    await update_stock(inventory, *(deduct(order, (product.id, 1)) for order in taken))
    await update_stock(inventory, *(deduct(order, (product.id, 1)) for order in short))
    page = await list_reservations(inventory, 3, state=state)
    found = list(page.reservations)
    while page.next_page_token:
        assert len(page.reservations) == 3
        page = await list_reservations(inventory, 3, page.next_page_token, state)
        found += page.reservations
    ids = [reservation.order_id for reservation in found]
    assert ids == sorted(set(ids))
    assert short <= set(ids)
    assert (taken <= set(ids)) == (state == 0)
    assert {each.state for each in found} == {state} or state == 0
    assert all(
        [(s.product_id, s.requested, s.available) for s in each.shortages] == [(product.id, 1, 0)]
        for each in found
        if each.order_id in short
    )


async def test_a_page_has_100_reservations_by_default(inventory: Inventory) -> None:
    await update_stock(inventory, *(restore(new_order_id()) for _ in range(101)))
    assert len((await list_reservations(inventory)).reservations) == 100
    assert len((await list_reservations(inventory, 10_000)).reservations) > 100


async def test_an_invalid_page_of_reservations_is_refused(inventory: Inventory) -> None:
    for token in ("!", "MTI", "bm9uZQ"):
        async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
            await list_reservations(inventory, page_token=token)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await list_reservations(inventory, -1)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_STATE"):
        await list_reservations(inventory, state=99)
