"""Moving stock by hand, and reading the ledger."""

import pytest

from inventory_service.domain import MAX_AMOUNT
from proto import inventory_pb2 as pb
from service_kit.errors import Code
from tests.service.inventory.calls import create_product, list_movements, refused
from tests.support.services import Inventory, ask

pytestmark = pytest.mark.usefixtures("ledger_adds_up")


async def test_stock_is_adjusted_by_hand_with_a_reason(inventory: Inventory) -> None:
    product = await create_product(inventory, 5)
    for delta, stock in ((7, 12), (-12, 0)):
        request = pb.AdjustStockRequest(product_id=product.id, delta=delta, reason=f"by {delta}")
        response = await ask(inventory.stub.AdjustStock, request)
        assert response == pb.AdjustStockResponse(product_id=product.id, stock=stock)
    newest, before, initial = await list_movements(inventory, product.id)
    assert (newest.kind, newest.delta) == (pb.STOCK_MOVEMENT_KIND_ADJUSTMENT, -12)
    assert (newest.reason, newest.order_id) == ("by -12", "")
    assert (before.delta, initial.kind) == (7, pb.STOCK_MOVEMENT_KIND_INITIAL)


async def test_an_adjustment_below_zero_is_refused_with_what_is_in_stock(
    inventory: Inventory,
) -> None:
    product = await create_product(inventory, 5)
    async with refused(inventory, Code.FAILED_PRECONDITION, "INSUFFICIENT_STOCK") as refusal:
        request = pb.AdjustStockRequest(product_id=product.id, delta=-6, reason="lost")
        await ask(inventory.stub.AdjustStock, request)
    assert refusal.value.metadata == {
        "product_id": str(product.id),
        "requested": "6",
        "available": "5",
    }


@pytest.mark.parametrize(
    ("delta", "why", "reason"),
    [
        (0, "nothing", "INVALID_DELTA"),
        (MAX_AMOUNT + 1, "much", "INVALID_DELTA"),
        (-MAX_AMOUNT - 1, "much", "INVALID_DELTA"),
        (-(2**63), "much", "INVALID_DELTA"),
        (1, "", "INVALID_REASON"),
        (1, " ", "INVALID_REASON"),
        (1, "r" * 501, "INVALID_REASON"),
        (1, "\0", "INVALID_REASON"),
    ],
)
async def test_an_adjustment_that_breaks_a_rule_is_refused(
    inventory: Inventory, delta: int, why: str, reason: str
) -> None:
    product = await create_product(inventory)
    async with refused(inventory, Code.INVALID_ARGUMENT, reason):
        request = pb.AdjustStockRequest(product_id=product.id, delta=delta, reason=why)
        await ask(inventory.stub.AdjustStock, request)


async def test_pages_list_the_ledger_newest_first(inventory: Inventory) -> None:
    product = await create_product(inventory, 0)
    for number in range(1, 12):
        request = pb.AdjustStockRequest(product_id=product.id, delta=number, reason="delivery")
        await ask(inventory.stub.AdjustStock, request)
    await create_product(inventory, 99)
    found: list[int] = []
    token = "start"
    while token:
        request_ = pb.ListStockMovementsRequest(
            product_id=product.id, page_size=5, page_token="" if token == "start" else token
        )
        page = await ask(inventory.stub.ListStockMovements, request_)
        found += [movement.delta for movement in page.movements]
        token = page.next_page_token
    assert found == [*range(11, 0, -1), 0]
