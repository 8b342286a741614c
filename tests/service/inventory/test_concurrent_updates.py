"""Many stock updates at once."""

import asyncio
import random
from collections import Counter

import pytest

from proto import inventory_pb2 as pb
from service_kit.errors import ServiceError
from tests.service.inventory.calls import (
    APPLIED,
    CANCELLED,
    INSUFFICIENT_STOCK,
    create_product,
    deduct,
    get_stock,
    new_order_id,
    outcomes,
    restore,
    update_stock,
)
from tests.support.services import Inventory, ask

pytestmark = pytest.mark.usefixtures("ledger_adds_up")


async def test_the_last_unit_goes_to_one_of_a_hundred_orders(inventory: Inventory) -> None:
    product = await create_product(inventory, 1)
    orders = [deduct(new_order_id(), (product.id, 1)) for _ in range(100)]
    results = await asyncio.gather(*(outcomes(inventory, order) for order in orders))
    assert Counter(outcome for (outcome,) in results) == {APPLIED: 1, INSUFFICIENT_STOCK: 99}
    assert await get_stock(inventory, product.id) == 0


async def test_orders_that_cross_each_other_never_deadlock(inventory: Inventory) -> None:
    ids = [(await create_product(inventory, 400)).id for _ in range(4)]

    def batch(number: int) -> list[pb.StockUpdate]:
        order = ids if number % 2 else ids[::-1]
        return [deduct(new_order_id(), *((product, 1) for product in order)) for _ in range(10)]

    results = await asyncio.gather(*(outcomes(inventory, *batch(number)) for number in range(50)))
    found = Counter(outcome for batch_outcomes in results for outcome in batch_outcomes)
    assert found == {APPLIED: 400, INSUFFICIENT_STOCK: 100}
    assert [await get_stock(inventory, product) for product in ids] == [0] * 4


async def test_the_same_orders_in_many_batches_at_once_are_applied_once(
    inventory: Inventory,
) -> None:
    one, other = await create_product(inventory, 100), await create_product(inventory, 100)
    updates = [deduct(new_order_id(), (one.id, 1), (other.id, 1)) for _ in range(20)]
    shuffled = [random.sample(updates, len(updates)) for _ in range(12)]
    results = await asyncio.gather(*(outcomes(inventory, *batch) for batch in shuffled))
    assert {outcome for batch_outcomes in results for outcome in batch_outcomes} == {APPLIED}
    assert await get_stock(inventory, one.id) == await get_stock(inventory, other.id) == 80


async def test_orders_racing_with_their_cancellations_leave_the_stock_as_it_was(
    inventory: Inventory,
) -> None:
    product = await create_product(inventory, 100)
    orders = [new_order_id() for _ in range(30)]
    race = [deduct(order, (product.id, 1)) for order in orders] + [restore(o) for o in orders]
    random.shuffle(race)
    await asyncio.gather(*(update_stock(inventory, each) for each in race))
    assert await get_stock(inventory, product.id) == 100
    again = await outcomes(inventory, *(deduct(order, (product.id, 1)) for order in orders))
    assert set(again) == {CANCELLED}


async def test_adjustments_and_orders_at_once_never_take_more_than_is_in_stock(
    inventory: Inventory,
) -> None:
    product = await create_product(inventory, 20)

    async def adjust() -> bool:
        request = pb.AdjustStockRequest(product_id=product.id, delta=-1, reason="broken")
        try:
            await ask(inventory.stub.AdjustStock, request)
        except ServiceError as refusal:
            assert refusal.reason == "INSUFFICIENT_STOCK"  # noqa: PT017 - others succeed
            return False
        return True

    async def order() -> bool:
        return await outcomes(inventory, deduct(new_order_id(), (product.id, 1))) == [APPLIED]

    taken = await asyncio.gather(*(adjust() if n % 2 else order() for n in range(60)))
    assert Counter(taken) == {True: 20, False: 40}
    assert await get_stock(inventory, product.id) == 0
