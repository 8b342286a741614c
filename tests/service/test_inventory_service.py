"""The inventory service over gRPC, against a real PostgreSQL."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError

from inventory_service.models import metadata, products, stock_movements
from inventory_service.operations import MAX_AMOUNT, MAX_PRODUCT_ID
from proto import inventory_pb2 as pb
from service_kit.errors import Code, DeadlineExceeded, ServiceError
from service_kit.grpc.client import call
from service_kit.grpc.health import is_serving
from service_kit.postgres.engine import open_engine
from tests.support.database import (
    contents,
    differences,
    migrated_by_replicas,
    refused,
    schema,
)
from tests.support.infrastructure import Infrastructure
from tests.support.probes import described, health, reflected
from tests.support.services import Inventory, ask
from tests.support.waiting import eventually, free_port

NAME = "ecommerce.inventory.v1.InventoryService"
UNKNOWN = 2**40

APPLIED = pb.STOCK_UPDATE_OUTCOME_APPLIED
SHORT = pb.STOCK_UPDATE_OUTCOME_INSUFFICIENT_STOCK
CANCELLED = pb.STOCK_UPDATE_OUTCOME_CANCELLED
UNKNOWN_PRODUCT = pb.STOCK_UPDATE_OUTCOME_UNKNOWN_PRODUCT


@pytest_asyncio.fixture(autouse=True)
async def _the_ledger_adds_up(inventory: Inventory) -> AsyncIterator[None]:
    """After each test: no stock is negative, and each is the sum of its movements."""
    yield
    statement = text("""
        SELECT products.id, stock, coalesce(sum(delta), 0) AS moved
        FROM products LEFT JOIN stock_movements ON product_id = products.id
        GROUP BY products.id HAVING stock < 0 OR stock <> coalesce(sum(delta), 0)
    """)
    async with inventory.engine.connect() as connection:
        assert (await connection.execute(statement)).all() == []


def refuses(
    inventory: Inventory, code: Code, reason: str
) -> AbstractAsyncContextManager[pytest.ExceptionInfo[ServiceError]]:
    return refused(inventory.engine, metadata, code, reason)


async def create(inventory: Inventory, stock: int = 10, **fields: Any) -> pb.Product:
    product_id = fields.pop("product_id", None)
    product = pb.Product(**{"name": "Tea", "price_cents": 250, "stock": stock, **fields})
    request = pb.CreateProductRequest(product=product, product_id=product_id)
    return await ask(inventory.stub.CreateProduct, request)


async def stock_of(inventory: Inventory, product_id: int) -> int:
    request = pb.GetProductRequest(product_id=product_id)
    return (await ask(inventory.stub.GetProduct, request)).stock


async def movements_of(inventory: Inventory, product_id: int) -> list[pb.StockMovement]:
    """The newest first."""
    request = pb.ListStockMovementsRequest(product_id=product_id, page_size=100)
    return list((await ask(inventory.stub.ListStockMovements, request)).movements)


def deduct(order_id: str, *items: tuple[int, int]) -> pb.StockUpdate:
    return pb.StockUpdate(
        order_id=order_id,
        kind=pb.STOCK_UPDATE_KIND_DEDUCT,
        items=[pb.StockItem(product_id=product, quantity=quantity) for product, quantity in items],
    )


def restore(order_id: str) -> pb.StockUpdate:
    return pb.StockUpdate(order_id=order_id, kind=pb.STOCK_UPDATE_KIND_RESTORE)


def some_order() -> str:
    return str(uuid.uuid4())


async def apply(inventory: Inventory, *updates: pb.StockUpdate) -> list[pb.StockUpdateResult]:
    request = pb.UpdateStockRequest(updates=updates)
    answer = await ask(inventory.stub.UpdateStock, request)
    assert [(each.order_id, each.kind) for each in answer.results] == [
        (each.order_id, each.kind) for each in updates
    ]
    return list(answer.results)


async def outcomes(
    inventory: Inventory, *updates: pb.StockUpdate
) -> list["pb.StockUpdateOutcome.ValueType"]:
    return [result.outcome for result in await apply(inventory, *updates)]


# The catalogue


async def test_a_new_product_is_answered_as_it_is_stored(inventory: Inventory) -> None:
    created = await create(inventory, 7, name="Cup", description="Blue", price_cents=1999)
    assert (created.name, created.description) == ("Cup", "Blue")
    assert (created.price_cents, created.stock) == (1999, 7)
    assert created.create_time.seconds > 1_700_000_000
    assert created.update_time == created.create_time
    found = await ask(inventory.stub.GetProduct, pb.GetProductRequest(product_id=created.id))
    assert found == created


async def test_the_initial_stock_is_the_first_entry_of_the_ledger(inventory: Inventory) -> None:
    product = await create(inventory, 7)
    (movement,) = await movements_of(inventory, product.id)
    assert (movement.kind, movement.delta) == (pb.STOCK_MOVEMENT_KIND_INITIAL, 7)
    assert (movement.order_id, movement.reason) == ("", "")


async def test_a_product_may_have_no_stock_no_price_and_the_longest_texts(
    inventory: Inventory,
) -> None:
    product = await create(inventory, 0, name="ä" * 200, description="é" * 5000, price_cents=0)
    assert (product.stock, product.price_cents, len(product.name)) == (0, 0, 200)
    dear = await create(inventory, MAX_AMOUNT, price_cents=MAX_AMOUNT)
    assert dear.stock == dear.price_cents == MAX_AMOUNT


async def test_an_explicit_id_is_kept(inventory: Inventory) -> None:
    assert (await create(inventory, product_id=101)).id == 101


async def test_an_id_that_is_taken_is_refused(inventory: Inventory) -> None:
    taken = await create(inventory)
    async with refuses(inventory, Code.ALREADY_EXISTS, "PRODUCT_EXISTS"):
        await create(inventory, product_id=taken.id, name="Usurper")


async def test_automatic_ids_pass_over_explicit_ones(inventory: Inventory) -> None:
    last = (await create(inventory)).id
    explicit = [last + 1, last + 2, last + 5]
    for product_id in explicit:
        await create(inventory, product_id=product_id, name="Explicit")
    automatic = [(await create(inventory)).id for _ in range(6)]
    assert len({*explicit, *automatic}) == 9
    for product_id in explicit:
        request = pb.GetProductRequest(product_id=product_id)
        assert (await ask(inventory.stub.GetProduct, request)).name == "Explicit"


async def test_ids_do_not_collide_when_many_create_products_at_once(
    inventory: Inventory,
) -> None:
    last = (await create(inventory)).id
    created = await asyncio.gather(
        *(
            create(inventory, product_id=last + 1 + number // 2 if number % 2 else None)
            for number in range(40)
        ),
        return_exceptions=True,
    )
    ids = [product.id for product in created if isinstance(product, pb.Product)]
    others = [refusal for refusal in created if not isinstance(refusal, pb.Product)]
    assert len(set(ids)) == len(ids) >= 20
    assert {getattr(refusal, "reason", refusal) for refusal in others} <= {"PRODUCT_EXISTS"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "INVALID_NAME"),
        ({"name": "  "}, "INVALID_NAME"),
        ({"name": "n" * 201}, "INVALID_NAME"),
        ({"name": "a\0b"}, "INVALID_NAME"),
        ({"description": "d" * 5001}, "INVALID_DESCRIPTION"),
        ({"description": "\0"}, "INVALID_DESCRIPTION"),
        ({"price_cents": -1}, "INVALID_PRICE"),
        ({"price_cents": MAX_AMOUNT + 1}, "INVALID_PRICE"),
        ({"stock": -1}, "INVALID_STOCK"),
        ({"stock": MAX_AMOUNT + 1}, "INVALID_STOCK"),
        ({"product_id": 0}, "INVALID_ID"),
        ({"product_id": -1}, "INVALID_ID"),
        ({"product_id": MAX_PRODUCT_ID + 1}, "INVALID_ID"),
    ],
)
async def test_a_product_that_breaks_a_rule_is_refused(
    inventory: Inventory, fields: dict[str, Any], reason: str
) -> None:
    async with refuses(inventory, Code.INVALID_ARGUMENT, reason):
        await create(inventory, **{"stock": 1, **fields})


async def test_a_product_that_does_not_exist_is_not_found(inventory: Inventory) -> None:
    mask = FieldMask(paths=["name"])
    renamed = pb.Product(id=UNKNOWN, name="Tea")
    adjustment = pb.AdjustStockRequest(product_id=UNKNOWN, delta=1, reason="found")
    stub = inventory.stub
    async with refuses(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await ask(stub.GetProduct, pb.GetProductRequest(product_id=UNKNOWN))
    async with refuses(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await ask(stub.UpdateProduct, pb.UpdateProductRequest(product=renamed, update_mask=mask))
    async with refuses(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await ask(stub.AdjustStock, adjustment)
    async with refuses(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await movements_of(inventory, UNKNOWN)


async def listed(
    inventory: Inventory, query: str, page_size: int = 0, page_token: str = ""
) -> pb.ListProductsResponse:
    request = pb.ListProductsRequest(query=query, page_size=page_size, page_token=page_token)
    return await ask(inventory.stub.ListProducts, request)


async def test_pages_give_every_product_once_by_ascending_id_however_deep(
    inventory: Inventory,
) -> None:
    created = [(await create(inventory, name=f"Deep {number}")).id for number in range(23)]
    page = await listed(inventory, "Deep", 4)
    found = list(page.products)
    while page.next_page_token:
        assert len(page.products) == 4
        # What is added meanwhile comes at the end and shifts nothing.
        created.append((await create(inventory, name="Deep, and late")).id)
        page = await listed(inventory, "Deep", 4, page.next_page_token)
        found += page.products
    assert [product.id for product in found] == created == sorted(created)


async def test_a_page_that_ends_with_the_last_product_says_so(inventory: Inventory) -> None:
    for _ in range(4):
        await create(inventory, name="Exactly four")
    page = await listed(inventory, "Exactly four", 4)
    assert (len(page.products), page.next_page_token) == (4, "")


async def test_a_page_has_20_products_unless_asked_and_100_at_most(inventory: Inventory) -> None:
    await asyncio.gather(*(create(inventory, name="Many") for _ in range(103)))
    assert len((await listed(inventory, "Many")).products) == 20
    page = await listed(inventory, "Many", 1000)
    assert len(page.products) == 100
    assert len((await listed(inventory, "Many", 100, page.next_page_token)).products) == 3


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("Oolong Gold", "oLoNg g"),
        ("100% Wool", "100% w"),
        ("snake_case", "e_c"),
        ("Grün", "GRÜN"),
        (r"back\slash", "k\\s"),
    ],
)
async def test_products_are_found_by_any_part_of_their_name_regardless_of_case(
    inventory: Inventory, name: str, query: str
) -> None:
    product = await create(inventory, name=name)
    await create(inventory, name="100x Wool, snakeXcase, Oolong, Gold")
    assert [found.id for found in (await listed(inventory, query)).products] == [product.id]


@pytest.mark.parametrize("query", ["a\0b", "q" * 201])
async def test_a_query_that_no_name_can_hold_is_refused(inventory: Inventory, query: str) -> None:
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_QUERY"):
        await listed(inventory, query)


@pytest.mark.parametrize("token", ["!", "bm9uZQ", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"])
async def test_a_page_token_that_was_not_given_out_is_refused(
    inventory: Inventory, token: str
) -> None:
    product = await create(inventory)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await listed(inventory, "", page_token=token)
    request = pb.ListStockMovementsRequest(product_id=product.id, page_token=token)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await ask(inventory.stub.ListStockMovements, request)


async def test_a_negative_page_size_is_refused(inventory: Inventory) -> None:
    product = await create(inventory)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await listed(inventory, "", -1)
    request = pb.ListStockMovementsRequest(product_id=product.id, page_size=-1)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await ask(inventory.stub.ListStockMovements, request)


async def change(inventory: Inventory, product: pb.Product, *paths: str) -> pb.Product:
    request = pb.UpdateProductRequest(product=product, update_mask=FieldMask(paths=paths))
    return await ask(inventory.stub.UpdateProduct, request)


async def test_only_the_fields_named_are_changed(inventory: Inventory) -> None:
    product = await create(inventory, 5, description="Old")
    wanted = pb.Product(id=product.id, name="New", description="New", price_cents=1, stock=99)
    changed = await change(inventory, wanted, "price_cents")
    assert (changed.price_cents, changed.name, changed.description) == (1, "Tea", "Old")
    assert changed.update_time.ToNanoseconds() > product.update_time.ToNanoseconds()
    changed = await change(inventory, wanted, "name", "description")
    assert (changed.price_cents, changed.name, changed.description) == (1, "New", "New")
    assert (changed.stock, changed.create_time) == (5, product.create_time)
    found = await ask(inventory.stub.GetProduct, pb.GetProductRequest(product_id=product.id))
    assert found == changed


async def test_a_description_can_be_emptied(inventory: Inventory) -> None:
    product = await create(inventory, description="Old")
    assert not (await change(inventory, pb.Product(id=product.id), "description")).description


@pytest.mark.parametrize(
    ("fields", "paths", "reason"),
    [
        ({"name": "New"}, [], "INVALID_UPDATE_MASK"),
        ({"stock": 5}, ["stock"], "INVALID_UPDATE_MASK"),
        ({"name": "New"}, ["name", "colour"], "INVALID_UPDATE_MASK"),
        ({"name": "New"}, ["name", "id"], "INVALID_UPDATE_MASK"),
        ({"name": "New"}, ["*"], "INVALID_UPDATE_MASK"),
        ({"name": ""}, ["name"], "INVALID_NAME"),
        ({"name": "n" * 201}, ["name"], "INVALID_NAME"),
        ({"description": "d" * 5001}, ["description"], "INVALID_DESCRIPTION"),
        ({"price_cents": -1}, ["price_cents"], "INVALID_PRICE"),
        ({"price_cents": MAX_AMOUNT + 1}, ["price_cents"], "INVALID_PRICE"),
    ],
)
async def test_a_change_that_breaks_a_rule_is_refused(
    inventory: Inventory, fields: dict[str, Any], paths: Sequence[str], reason: str
) -> None:
    product = await create(inventory)
    async with refuses(inventory, Code.INVALID_ARGUMENT, reason):
        await change(inventory, pb.Product(id=product.id, **fields), *paths)


# Stock: looking, and moving it for orders


async def test_checking_answers_in_the_order_of_the_request_and_takes_nothing(
    inventory: Inventory,
) -> None:
    one = await create(inventory, 3, name="One", price_cents=100)
    other = await create(inventory, 0, name="Other", price_cents=200)
    wanted = [(other.id, 1), (one.id, 3), (UNKNOWN, 1), (one.id, 4), (other.id, 0)]
    items = [pb.StockItem(product_id=product, quantity=quantity) for product, quantity in wanted]
    answer = await ask(inventory.stub.CheckStock, pb.CheckStockRequest(items=items))

    def known(product: pb.Product, *, available: bool) -> pb.StockCheck:
        return pb.StockCheck(
            product_id=product.id,
            found=True,
            name=product.name,
            price_cents=product.price_cents,
            stock=product.stock,
            available=available,
        )

    assert list(answer.checks) == [
        known(other, available=False),
        known(one, available=True),
        pb.StockCheck(product_id=UNKNOWN),
        known(one, available=False),
        known(other, available=True),
    ]
    assert await stock_of(inventory, one.id) == 3


async def test_checking_nothing_answers_nothing(inventory: Inventory) -> None:
    assert not (await ask(inventory.stub.CheckStock, pb.CheckStockRequest())).checks


async def test_ten_thousand_items_can_be_checked_at_once_and_no_more(
    inventory: Inventory,
) -> None:
    items = [pb.StockItem(product_id=number, quantity=1) for number in range(1, 10_002)]
    request = pb.CheckStockRequest(items=items[:-1])
    assert len((await ask(inventory.stub.CheckStock, request)).checks) == 10_000
    async with refuses(inventory, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await ask(inventory.stub.CheckStock, pb.CheckStockRequest(items=items))


async def test_an_order_takes_its_items_and_the_ledger_tells_so(inventory: Inventory) -> None:
    one, other = await create(inventory, 5), await create(inventory, 5)
    order = some_order()
    assert await outcomes(inventory, deduct(order, (one.id, 2), (other.id, 5))) == [APPLIED]
    assert await stock_of(inventory, one.id) == 3
    assert await stock_of(inventory, other.id) == 0
    newest = (await movements_of(inventory, one.id))[0]
    assert (newest.kind, newest.delta) == (pb.STOCK_MOVEMENT_KIND_DEDUCT, -2)
    assert (newest.order_id, newest.product_id) == (order, one.id)


async def test_repeating_an_update_applies_it_once(inventory: Inventory) -> None:
    product, order = await create(inventory, 5), some_order()
    for _ in range(3):
        assert await outcomes(inventory, deduct(order, (product.id, 2))) == [APPLIED]
    # The same order is the same, whatever it says it holds now.
    assert await outcomes(inventory, deduct(order, (product.id, 1))) == [APPLIED]
    assert await stock_of(inventory, product.id) == 3
    for _ in range(3):
        assert await outcomes(inventory, restore(order)) == [APPLIED]
    assert await stock_of(inventory, product.id) == 5
    assert await outcomes(inventory, deduct(order, (product.id, 2))) == [CANCELLED]
    assert len(await movements_of(inventory, product.id)) == 3


async def test_an_update_that_comes_twice_in_one_batch_is_applied_once(
    inventory: Inventory,
) -> None:
    product, order = await create(inventory, 5), some_order()
    twice = [deduct(order, (product.id, 2))] * 2
    assert await outcomes(inventory, *twice) == [APPLIED, APPLIED]
    assert await stock_of(inventory, product.id) == 3
    assert await outcomes(inventory, restore(order), restore(order)) == [APPLIED, APPLIED]
    assert await stock_of(inventory, product.id) == 5


async def test_an_order_and_its_cancellation_may_come_in_one_batch(inventory: Inventory) -> None:
    product, order = await create(inventory, 5), some_order()
    batch = [deduct(order, (product.id, 2)), restore(order), deduct(order, (product.id, 2))]
    assert await outcomes(inventory, *batch) == [APPLIED, APPLIED, CANCELLED]
    assert await stock_of(inventory, product.id) == 5
    assert await outcomes(inventory, *batch) == [CANCELLED, APPLIED, CANCELLED]
    assert len(await movements_of(inventory, product.id)) == 3


async def test_a_shortage_fails_its_order_alone_and_names_what_was_short(
    inventory: Inventory,
) -> None:
    plenty, scarce = await create(inventory, 9), await create(inventory, 1)
    short, fine = some_order(), some_order()
    results = await apply(
        inventory,
        deduct(short, (plenty.id, 1), (scarce.id, 2)),
        deduct(fine, (plenty.id, 1), (scarce.id, 1)),
    )
    assert [result.outcome for result in results] == [SHORT, APPLIED]
    shortage = pb.Shortage(product_id=scarce.id, requested=2, available=1)
    assert list(results[0].shortages) == [shortage]
    assert await stock_of(inventory, plenty.id) == 8
    assert await stock_of(inventory, scarce.id) == 0


async def test_an_order_that_was_short_stays_so_and_is_told_the_same_again(
    inventory: Inventory,
) -> None:
    product, order = await create(inventory, 1), some_order()
    (first,) = await apply(inventory, deduct(order, (product.id, 2)))
    adjustment = pb.AdjustStockRequest(product_id=product.id, delta=9, reason="delivery")
    await ask(inventory.stub.AdjustStock, adjustment)
    assert await apply(inventory, deduct(order, (product.id, 2))) == [first]
    assert first.outcome == SHORT
    assert await outcomes(inventory, restore(order)) == [CANCELLED]
    assert await stock_of(inventory, product.id) == 10


async def test_a_product_named_twice_in_an_update_is_added_up(inventory: Inventory) -> None:
    product = await create(inventory, 5)
    (result,) = await apply(inventory, deduct(some_order(), (product.id, 3), (product.id, 3)))
    assert list(result.shortages) == [pb.Shortage(product_id=product.id, requested=6, available=5)]
    fits = deduct(some_order(), (product.id, 3), (product.id, 2))
    assert await outcomes(inventory, fits) == [APPLIED]
    assert await stock_of(inventory, product.id) == 0


async def test_an_order_with_an_unknown_product_takes_nothing_and_is_not_recorded(
    inventory: Inventory,
) -> None:
    product, order = await create(inventory, 5), some_order()
    (result,) = await apply(inventory, deduct(order, (product.id, 1), (UNKNOWN, 1)))
    assert result.outcome == UNKNOWN_PRODUCT
    assert list(result.unknown_product_ids) == [UNKNOWN]
    assert await stock_of(inventory, product.id) == 5
    assert await outcomes(inventory, deduct(order, (product.id, 1))) == [APPLIED]


async def test_a_cancellation_that_overtakes_its_order_leaves_a_tombstone(
    inventory: Inventory,
) -> None:
    product, order = await create(inventory, 5), some_order()
    assert await outcomes(inventory, restore(order)) == [CANCELLED]
    assert await outcomes(inventory, deduct(order, (product.id, 1))) == [CANCELLED]
    assert await outcomes(inventory, restore(order)) == [CANCELLED]
    assert await stock_of(inventory, product.id) == 5


async def test_a_restore_puts_back_what_was_taken_whatever_it_says_itself(
    inventory: Inventory,
) -> None:
    product, order = await create(inventory, 5), some_order()
    await apply(inventory, deduct(order, (product.id, 2)))
    boastful = restore(order)
    boastful.items.add(product_id=product.id, quantity=1000)
    assert await outcomes(inventory, boastful) == [APPLIED]
    assert await stock_of(inventory, product.id) == 5


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
    product = await create(inventory, 5)
    async with refuses(inventory, Code.INVALID_ARGUMENT, reason):
        await apply(inventory, deduct(some_order(), (product.id, 1)), update_)


async def test_a_thousand_updates_go_in_one_batch_and_no_more(inventory: Inventory) -> None:
    product = await create(inventory, 999)
    batch = [deduct(some_order(), (product.id, 1)) for _ in range(1001)]
    async with refuses(inventory, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await apply(inventory, *batch)
    found = Counter(await outcomes(inventory, *batch[:-1]))
    assert found == {APPLIED: 999, SHORT: 1}
    assert await stock_of(inventory, product.id) == 0


async def test_no_updates_are_answered_by_no_results(inventory: Inventory) -> None:
    assert await apply(inventory) == []


async def test_a_rehearsal_is_answered_as_if_it_were_applied_and_changes_nothing(
    inventory: Inventory,
) -> None:
    product, taken, short = await create(inventory, 5), some_order(), some_order()
    await apply(inventory, deduct(taken, (product.id, 2)))
    updates = [
        restore(taken),
        deduct(short, (product.id, 6)),
        deduct(some_order(), (product.id, 5)),
        deduct(some_order(), (UNKNOWN, 1)),
        restore(some_order()),
    ]
    before = await contents(inventory.engine, metadata)
    rehearsal = pb.UpdateStockRequest(updates=updates, validate_only=True)
    answer = await ask(inventory.stub.UpdateStock, rehearsal)
    assert await contents(inventory.engine, metadata) == before
    assert list(answer.results) == await apply(inventory, *updates)
    assert [result.outcome for result in answer.results] == [
        APPLIED,
        SHORT,
        APPLIED,
        UNKNOWN_PRODUCT,
        CANCELLED,
    ]


# What was decided for orders


async def reservations_of(inventory: Inventory, *order_ids: str) -> dict[str, pb.Reservation]:
    request = pb.BatchGetReservationsRequest(order_ids=order_ids)
    answer = await ask(inventory.stub.BatchGetReservations, request)
    found = {reservation.order_id: reservation for reservation in answer.reservations}
    assert len(found) == len(answer.reservations)
    return found


async def test_what_was_decided_for_orders_is_told_with_its_movements(
    inventory: Inventory,
) -> None:
    one, other = await create(inventory, 10), await create(inventory, 10)
    deducted, restored, rejected, cancelled = (some_order() for _ in range(4))
    await apply(
        inventory,
        deduct(deducted, (one.id, 2), (other.id, 3)),
        deduct(restored, (one.id, 4)),
        deduct(rejected, (one.id, 5)),
    )
    await apply(inventory, restore(restored), restore(cancelled))
    found = await reservations_of(
        inventory, deducted, restored, rejected, cancelled, some_order(), deducted
    )
    told = {
        order_id: (
            pb.ReservationState.Name(each.state).removeprefix("RESERVATION_STATE_"),
            [(movement.product_id, movement.delta) for movement in each.movements],
            [(short.product_id, short.requested, short.available) for short in each.shortages],
        )
        for order_id, each in found.items()
    }
    assert told == {
        deducted: ("DEDUCTED", [(one.id, -2), (other.id, -3)], []),
        restored: ("RESTORED", [(one.id, -4), (one.id, 4)], []),
        rejected: ("REJECTED", [], [(one.id, 5, 4)]),
        cancelled: ("CANCELLED", [], []),
    }
    assert found[deducted].create_time.seconds > 1_700_000_000
    assert await reservations_of(inventory) == {}


async def test_a_thousand_orders_are_looked_up_at_once_and_no_more(inventory: Inventory) -> None:
    orders = [some_order() for _ in range(1001)]
    assert await reservations_of(inventory, *orders[:-1]) == {}
    async with refuses(inventory, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await reservations_of(inventory, *orders)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_ORDER_ID"):
        await reservations_of(inventory, "7")


async def decided(
    inventory: Inventory, page_size: int = 0, page_token: str = "", state: int = 0
) -> pb.ListReservationsResponse:
    request = pb.ListReservationsRequest(
        page_size=page_size,
        page_token=page_token,
        state=state,  # type: ignore[arg-type] # also numbers that are no state
    )
    return await ask(inventory.stub.ListReservations, request)


@pytest.mark.parametrize("state", [0, pb.RESERVATION_STATE_REJECTED])
async def test_pages_of_decisions_give_each_once_by_ascending_order_id(
    inventory: Inventory, state: int
) -> None:
    product = await create(inventory, 5)
    taken, short = [{some_order() for _ in range(5)} for _ in range(2)]
    await apply(inventory, *(deduct(order, (product.id, 1)) for order in taken))
    await apply(inventory, *(deduct(order, (product.id, 1)) for order in short))
    page = await decided(inventory, 3, state=state)
    found = list(page.reservations)
    while page.next_page_token:
        assert len(page.reservations) == 3
        page = await decided(inventory, 3, page.next_page_token, state)
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


async def test_a_page_has_100_decisions_unless_asked(inventory: Inventory) -> None:
    await apply(inventory, *(restore(some_order()) for _ in range(101)))
    assert len((await decided(inventory)).reservations) == 100
    assert len((await decided(inventory, 10_000)).reservations) > 100


async def test_a_list_of_decisions_that_cannot_be_given_is_refused(inventory: Inventory) -> None:
    for token in ("!", "MTI", "bm9uZQ"):
        async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
            await decided(inventory, page_token=token)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await decided(inventory, -1)
    async with refuses(inventory, Code.INVALID_ARGUMENT, "INVALID_STATE"):
        await decided(inventory, state=99)


# Stock: many at once


async def test_the_last_unit_goes_to_one_of_a_hundred(inventory: Inventory) -> None:
    product = await create(inventory, 1)
    orders = [deduct(some_order(), (product.id, 1)) for _ in range(100)]
    answers = await asyncio.gather(*(outcomes(inventory, order) for order in orders))
    assert Counter(outcome for (outcome,) in answers) == {APPLIED: 1, SHORT: 99}
    assert await stock_of(inventory, product.id) == 0


async def test_orders_that_cross_each_other_never_deadlock(inventory: Inventory) -> None:
    ids = [(await create(inventory, 400)).id for _ in range(4)]

    def batch(number: int) -> list[pb.StockUpdate]:
        order = ids if number % 2 else ids[::-1]
        return [deduct(some_order(), *((product, 1) for product in order)) for _ in range(10)]

    answers = await asyncio.gather(*(outcomes(inventory, *batch(number)) for number in range(50)))
    found = Counter(outcome for batch_outcomes in answers for outcome in batch_outcomes)
    assert found == {APPLIED: 400, SHORT: 100}
    assert [await stock_of(inventory, product) for product in ids] == [0] * 4


async def test_the_same_orders_in_many_batches_at_once_are_applied_once(
    inventory: Inventory,
) -> None:
    one, other = await create(inventory, 100), await create(inventory, 100)
    updates = [deduct(some_order(), (one.id, 1), (other.id, 1)) for _ in range(20)]
    shuffled = [random.sample(updates, len(updates)) for _ in range(12)]
    answers = await asyncio.gather(*(outcomes(inventory, *batch) for batch in shuffled))
    assert {outcome for batch_outcomes in answers for outcome in batch_outcomes} == {APPLIED}
    assert await stock_of(inventory, one.id) == await stock_of(inventory, other.id) == 80


async def test_orders_racing_with_their_cancellations_leave_the_stock_as_it_was(
    inventory: Inventory,
) -> None:
    product = await create(inventory, 100)
    orders = [some_order() for _ in range(30)]
    race = [deduct(order, (product.id, 1)) for order in orders] + [restore(o) for o in orders]
    random.shuffle(race)
    await asyncio.gather(*(apply(inventory, each) for each in race))
    assert await stock_of(inventory, product.id) == 100
    again = await outcomes(inventory, *(deduct(order, (product.id, 1)) for order in orders))
    assert set(again) == {CANCELLED}


async def test_adjustments_and_orders_at_once_never_take_more_than_there_is(
    inventory: Inventory,
) -> None:
    product = await create(inventory, 20)

    async def adjust() -> bool:
        request = pb.AdjustStockRequest(product_id=product.id, delta=-1, reason="broken")
        try:
            await ask(inventory.stub.AdjustStock, request)
        except ServiceError as refusal:
            assert refusal.reason == "INSUFFICIENT_STOCK"  # noqa: PT017 - others succeed
            return False
        return True

    async def order() -> bool:
        return await outcomes(inventory, deduct(some_order(), (product.id, 1))) == [APPLIED]

    taken = await asyncio.gather(*(adjust() if n % 2 else order() for n in range(60)))
    assert Counter(taken) == {True: 20, False: 40}
    assert await stock_of(inventory, product.id) == 0


# Stock: moving it by hand


async def test_stock_is_adjusted_by_hand_with_a_reason(inventory: Inventory) -> None:
    product = await create(inventory, 5)
    for delta, stock in ((7, 12), (-12, 0)):
        request = pb.AdjustStockRequest(product_id=product.id, delta=delta, reason=f"by {delta}")
        answer = await ask(inventory.stub.AdjustStock, request)
        assert answer == pb.AdjustStockResponse(product_id=product.id, stock=stock)
    newest, before, initial = await movements_of(inventory, product.id)
    assert (newest.kind, newest.delta) == (pb.STOCK_MOVEMENT_KIND_ADJUSTMENT, -12)
    assert (newest.reason, newest.order_id) == ("by -12", "")
    assert (before.delta, initial.kind) == (7, pb.STOCK_MOVEMENT_KIND_INITIAL)


async def test_an_adjustment_below_zero_is_refused_and_tells_what_there_is(
    inventory: Inventory,
) -> None:
    product = await create(inventory, 5)
    async with refuses(inventory, Code.FAILED_PRECONDITION, "INSUFFICIENT_STOCK") as refusal:
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
    product = await create(inventory)
    async with refuses(inventory, Code.INVALID_ARGUMENT, reason):
        request = pb.AdjustStockRequest(product_id=product.id, delta=delta, reason=why)
        await ask(inventory.stub.AdjustStock, request)


async def test_the_ledger_is_read_newest_first_however_deep(inventory: Inventory) -> None:
    product = await create(inventory, 0)
    for number in range(1, 12):
        request = pb.AdjustStockRequest(product_id=product.id, delta=number, reason="delivery")
        await ask(inventory.stub.AdjustStock, request)
    await create(inventory, 99)
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


# The database and the server


async def test_the_schema_itself_keeps_stock_from_becoming_negative(
    inventory: Inventory,
) -> None:
    product = await create(inventory, 5)
    statement = update(products).where(products.c.id == product.id).values(stock=-1)
    with pytest.raises(IntegrityError, match="ck_products_stock_not_negative"):
        async with inventory.engine.begin() as connection:
            await connection.execute(statement)


async def test_a_call_whose_deadline_passes_changes_nothing(inventory: Inventory) -> None:
    product = await create(inventory, 5)
    movements = select(stock_movements.c.id).where(stock_movements.c.product_id == product.id)
    lock = select(products).where(products.c.id == product.id).with_for_update()
    async with inventory.engine.begin() as connection:
        await connection.execute(lock)
        request = pb.AdjustStockRequest(product_id=product.id, delta=-1, reason="late")
        with pytest.raises(DeadlineExceeded):
            await call(inventory.stub.AdjustStock, request, timeout=0.3)
        await eventually(lambda: _nobody_waits_for_locks(inventory), within=5)
    async with inventory.engine.connect() as connection:
        assert len((await connection.execute(movements)).all()) == 1
    assert await stock_of(inventory, product.id) == 5


async def _nobody_waits_for_locks(inventory: Inventory) -> bool:
    statement = text("SELECT count(*) = 0 FROM pg_locks WHERE NOT granted")
    async with inventory.engine.connect() as connection:
        return bool(await connection.scalar(statement))


async def test_health_and_reflection_answer(inventory: Inventory) -> None:
    assert await health(inventory.address) == "SERVING"
    assert await health(inventory.address, NAME) == "SERVING"
    assert {NAME, "grpc.health.v1.Health"} <= await reflected(inventory.address)
    assert await described(inventory.address, NAME)
    assert await asyncio.to_thread(is_serving, inventory.address)
    assert not await asyncio.to_thread(is_serving, f"127.0.0.1:{free_port()}", 0.5)


async def test_the_migrations_make_what_the_models_describe(
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
