"""Checking stock, and moving it for orders: all items or none, each order once."""

import uuid
from collections import Counter

import pytest

from inventory_service import operations
from inventory_service.domain import StockUpdate
from inventory_service.tables import metadata
from proto import inventory_pb2 as pb
from proto.stock import StockUpdateKind, StockUpdateOutcome
from service_kit.errors import Code
from tests.service.inventory.calls import (
    APPLIED,
    CANCELLED,
    INSUFFICIENT_STOCK,
    UNKNOWN,
    UNKNOWN_PRODUCT,
    create_product,
    deduct,
    get_stock,
    list_movements,
    new_order_id,
    outcomes,
    refused,
    restore,
    update_stock,
)
from tests.support.database import contents
from tests.support.services import Inventory, ask

pytestmark = pytest.mark.usefixtures("ledger_adds_up")


async def test_checks_are_in_the_order_of_the_request_and_change_nothing(
    inventory: Inventory,
) -> None:
    one = await create_product(inventory, 3, name="One", price_cents=100)
    other = await create_product(inventory, 0, name="Other", price_cents=200)
    wanted = [(other.id, 1), (one.id, 3), (UNKNOWN, 1), (one.id, 4), (other.id, 0)]
    items = [pb.StockItem(product_id=product, quantity=quantity) for product, quantity in wanted]
    response = await ask(inventory.stub.CheckStock, pb.CheckStockRequest(items=items))

    def known(product: pb.Product, *, available: bool) -> pb.StockCheck:
        return pb.StockCheck(
            product_id=product.id,
            found=True,
            name=product.name,
            price_cents=product.price_cents,
            stock=product.stock,
            available=available,
        )

    assert list(response.checks) == [
        known(other, available=False),
        known(one, available=True),
        pb.StockCheck(product_id=UNKNOWN),
        known(one, available=False),
        known(other, available=True),
    ]
    assert await get_stock(inventory, one.id) == 3


async def test_a_check_of_no_items_is_empty(inventory: Inventory) -> None:
    assert not (await ask(inventory.stub.CheckStock, pb.CheckStockRequest())).checks


async def test_ten_thousand_items_at_most_are_checked_in_one_call(
    inventory: Inventory,
) -> None:
    items = [pb.StockItem(product_id=number, quantity=1) for number in range(1, 10_002)]
    request = pb.CheckStockRequest(items=items[:-1])
    assert len((await ask(inventory.stub.CheckStock, request)).checks) == 10_000
    async with refused(inventory, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await ask(inventory.stub.CheckStock, pb.CheckStockRequest(items=items))


async def test_an_order_takes_its_items_and_the_ledger_records_it(inventory: Inventory) -> None:
    one, other = await create_product(inventory, 5), await create_product(inventory, 5)
    order = new_order_id()
    assert await outcomes(inventory, deduct(order, (one.id, 2), (other.id, 5))) == [APPLIED]
    assert await get_stock(inventory, one.id) == 3
    assert await get_stock(inventory, other.id) == 0
    newest = (await list_movements(inventory, one.id))[0]
    assert (newest.kind, newest.delta) == (pb.STOCK_MOVEMENT_KIND_DEDUCT, -2)
    assert (newest.order_id, newest.product_id) == (order, one.id)


async def test_repeating_an_update_applies_it_once(inventory: Inventory) -> None:
    product, order = await create_product(inventory, 5), new_order_id()
    for _ in range(3):
        assert await outcomes(inventory, deduct(order, (product.id, 2))) == [APPLIED]
    # The order counts, not its items.
    assert await outcomes(inventory, deduct(order, (product.id, 1))) == [APPLIED]
    assert await get_stock(inventory, product.id) == 3
    for _ in range(3):
        assert await outcomes(inventory, restore(order)) == [APPLIED]
    assert await get_stock(inventory, product.id) == 5
    assert await outcomes(inventory, deduct(order, (product.id, 2))) == [CANCELLED]
    assert len(await list_movements(inventory, product.id)) == 3


async def test_an_update_twice_in_one_batch_is_applied_once(
    inventory: Inventory,
) -> None:
    product, order = await create_product(inventory, 5), new_order_id()
    twice = [deduct(order, (product.id, 2))] * 2
    assert await outcomes(inventory, *twice) == [APPLIED, APPLIED]
    assert await get_stock(inventory, product.id) == 3
    assert await outcomes(inventory, restore(order), restore(order)) == [APPLIED, APPLIED]
    assert await get_stock(inventory, product.id) == 5


async def test_an_order_and_its_cancellation_may_be_in_one_batch(inventory: Inventory) -> None:
    product, order = await create_product(inventory, 5), new_order_id()
    batch = [deduct(order, (product.id, 2)), restore(order), deduct(order, (product.id, 2))]
    assert await outcomes(inventory, *batch) == [APPLIED, APPLIED, CANCELLED]
    assert await get_stock(inventory, product.id) == 5
    assert await outcomes(inventory, *batch) == [CANCELLED, APPLIED, CANCELLED]
    assert len(await list_movements(inventory, product.id)) == 3


async def test_a_shortage_fails_its_order_alone_and_names_the_items(
    inventory: Inventory,
) -> None:
    plenty, scarce = await create_product(inventory, 9), await create_product(inventory, 1)
    short, fine = new_order_id(), new_order_id()
    results = await update_stock(
        inventory,
        deduct(short, (plenty.id, 1), (scarce.id, 2)),
        deduct(fine, (plenty.id, 1), (scarce.id, 1)),
    )
    assert [result.outcome for result in results] == [INSUFFICIENT_STOCK, APPLIED]
    shortage = pb.Shortage(product_id=scarce.id, requested=2, available=1)
    assert list(results[0].shortages) == [shortage]
    assert await get_stock(inventory, plenty.id) == 8
    assert await get_stock(inventory, scarce.id) == 0


async def test_a_rejected_order_stays_rejected_with_the_same_result(
    inventory: Inventory,
) -> None:
    product, order = await create_product(inventory, 1), new_order_id()
    (first,) = await update_stock(inventory, deduct(order, (product.id, 2)))
    adjustment = pb.AdjustStockRequest(product_id=product.id, delta=9, reason="delivery")
    await ask(inventory.stub.AdjustStock, adjustment)
    assert await update_stock(inventory, deduct(order, (product.id, 2))) == [first]
    assert first.outcome == INSUFFICIENT_STOCK
    assert await outcomes(inventory, restore(order)) == [CANCELLED]
    assert await get_stock(inventory, product.id) == 10


async def test_quantities_of_a_repeated_product_are_summed(inventory: Inventory) -> None:
    product = await create_product(inventory, 5)
    (result,) = await update_stock(
        inventory, deduct(new_order_id(), (product.id, 3), (product.id, 3))
    )
    assert list(result.shortages) == [pb.Shortage(product_id=product.id, requested=6, available=5)]
    fits = deduct(new_order_id(), (product.id, 3), (product.id, 2))
    assert await outcomes(inventory, fits) == [APPLIED]
    assert await get_stock(inventory, product.id) == 0


async def test_an_order_with_an_unknown_product_takes_nothing_and_is_not_recorded(
    inventory: Inventory,
) -> None:
    product, order = await create_product(inventory, 5), new_order_id()
    (result,) = await update_stock(inventory, deduct(order, (product.id, 1), (UNKNOWN, 1)))
    assert result.outcome == UNKNOWN_PRODUCT
    assert list(result.unknown_product_ids) == [UNKNOWN]
    assert await get_stock(inventory, product.id) == 5
    assert await outcomes(inventory, deduct(order, (product.id, 1))) == [APPLIED]


async def test_a_cancellation_that_overtakes_its_order_leaves_a_tombstone(
    inventory: Inventory,
) -> None:
    product, order = await create_product(inventory, 5), new_order_id()
    assert await outcomes(inventory, restore(order)) == [CANCELLED]
    assert await outcomes(inventory, deduct(order, (product.id, 1))) == [CANCELLED]
    assert await outcomes(inventory, restore(order)) == [CANCELLED]
    assert await get_stock(inventory, product.id) == 5


async def test_a_restore_puts_back_what_was_taken_whatever_its_items(
    inventory: Inventory,
) -> None:
    product, order = await create_product(inventory, 5), new_order_id()
    await update_stock(inventory, deduct(order, (product.id, 2)))
    boastful = restore(order)
    boastful.items.add(product_id=product.id, quantity=1000)
    assert await outcomes(inventory, boastful) == [APPLIED]
    assert await get_stock(inventory, product.id) == 5


@pytest.mark.parametrize(
    ("update_", "reason"),
    [
        (pb.StockUpdate(order_id=str(uuid.uuid4())), "INVALID_KIND"),
        (deduct("", (1, 1)), "INVALID_ORDER_ID"),
        (deduct("7", (1, 1)), "INVALID_ORDER_ID"),
        (deduct(str(uuid.uuid4()), (1, 0)), "INVALID_QUANTITY"),
        (deduct(str(uuid.uuid4()), (1, -1)), "INVALID_QUANTITY"),
        (deduct(str(uuid.uuid4()), (1, 1_000_001)), "INVALID_QUANTITY"),
    ],
)
async def test_a_batch_with_a_malformed_update_is_refused_as_a_whole(
    inventory: Inventory, update_: pb.StockUpdate, reason: str
) -> None:
    product = await create_product(inventory, 5)
    async with refused(inventory, Code.INVALID_ARGUMENT, reason):
        await update_stock(inventory, deduct(new_order_id(), (product.id, 1)), update_)


async def test_a_batch_has_a_thousand_updates_at_most(inventory: Inventory) -> None:
    product = await create_product(inventory, 999)
    batch = [deduct(new_order_id(), (product.id, 1)) for _ in range(1001)]
    async with refused(inventory, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await update_stock(inventory, *batch)
    found = Counter(await outcomes(inventory, *batch[:-1]))
    assert found == {APPLIED: 999, INSUFFICIENT_STOCK: 1}
    assert await get_stock(inventory, product.id) == 0


async def test_an_empty_batch_has_no_results(inventory: Inventory) -> None:
    assert await update_stock(inventory) == []


async def test_a_dry_run_has_the_results_of_the_updates_and_changes_nothing(
    inventory: Inventory,
) -> None:
    product, taken, short = await create_product(inventory, 5), new_order_id(), new_order_id()
    await update_stock(inventory, deduct(taken, (product.id, 2)))
    updates = [
        restore(taken),
        deduct(short, (product.id, 6)),
        deduct(new_order_id(), (product.id, 5)),
        deduct(new_order_id(), (UNKNOWN, 1)),
        restore(new_order_id()),
    ]
    before = await contents(inventory.engine, metadata)
    dry_run = pb.UpdateStockRequest(updates=updates, validate_only=True)
    response = await ask(inventory.stub.UpdateStock, dry_run)
    assert await contents(inventory.engine, metadata) == before
    assert list(response.results) == await update_stock(inventory, *updates)
    assert [result.outcome for result in response.results] == [
        APPLIED,
        INSUFFICIENT_STOCK,
        APPLIED,
        UNKNOWN_PRODUCT,
        CANCELLED,
    ]


async def test_a_dry_run_can_be_repeated_before_the_updates_are_applied(
    inventory: Inventory,
) -> None:
    engine, tea = inventory.engine, (await create_product(inventory, 5)).id
    first, second = (
        StockUpdate(uuid.uuid4(), StockUpdateKind.DEDUCT, {tea: quantity}) for quantity in (3, 3)
    )
    for _ in range(2):
        planned = await operations.update_stock(engine, [first, second], validate_only=True)
        assert [each.outcome for each in planned] == [
            StockUpdateOutcome.APPLIED,
            StockUpdateOutcome.INSUFFICIENT_STOCK,
        ]
    assert (await operations.get_product(engine, tea)).stock == 5
    assert await operations.get_reservations(engine, [first.order_id]) == []
    assert await operations.update_stock(engine, [first, second]) == planned
