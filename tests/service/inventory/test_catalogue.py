"""The catalogue: creating, finding, listing and changing products."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from inventory_service.domain import MAX_AMOUNT, MAX_PRODUCT_ID
from proto import inventory_pb2 as pb
from service_kit.errors import Code
from tests.service.inventory.calls import (
    UNKNOWN,
    create_product,
    list_movements,
    refused,
)
from tests.support.services import Inventory, ask

pytestmark = pytest.mark.usefixtures("ledger_adds_up")


async def test_creating_a_product_returns_it_as_it_is_stored(inventory: Inventory) -> None:
    created = await create_product(inventory, 7, name="Cup", description="Blue", price_cents=1999)
    assert (created.name, created.description) == ("Cup", "Blue")
    assert (created.price_cents, created.stock) == (1999, 7)
    assert created.create_time.seconds > 1_700_000_000
    assert created.update_time == created.create_time
    found = await ask(inventory.stub.GetProduct, pb.GetProductRequest(product_id=created.id))
    assert found == created


async def test_the_initial_stock_is_the_first_entry_of_the_ledger(inventory: Inventory) -> None:
    product = await create_product(inventory, 7)
    (movement,) = await list_movements(inventory, product.id)
    assert (movement.kind, movement.delta) == (pb.STOCK_MOVEMENT_KIND_INITIAL, 7)
    assert (movement.order_id, movement.reason) == ("", "")


async def test_a_product_may_have_no_stock_no_price_and_the_longest_texts(
    inventory: Inventory,
) -> None:
    product = await create_product(
        inventory, 0, name="ä" * 200, description="é" * 5000, price_cents=0
    )
    assert (product.stock, product.price_cents, len(product.name)) == (0, 0, 200)
    dear = await create_product(inventory, MAX_AMOUNT, price_cents=MAX_AMOUNT)
    assert dear.stock == dear.price_cents == MAX_AMOUNT


async def test_an_explicit_id_is_kept(inventory: Inventory) -> None:
    assert (await create_product(inventory, product_id=101)).id == 101


async def test_an_id_that_is_taken_is_refused(inventory: Inventory) -> None:
    taken = await create_product(inventory)
    async with refused(inventory, Code.ALREADY_EXISTS, "PRODUCT_EXISTS"):
        await create_product(inventory, product_id=taken.id, name="Usurper")


async def test_assigned_ids_skip_explicit_ones(inventory: Inventory) -> None:
    last = (await create_product(inventory)).id
    explicit = [last + 1, last + 2, last + 5]
    for product_id in explicit:
        await create_product(inventory, product_id=product_id, name="Explicit")
    automatic = [(await create_product(inventory)).id for _ in range(6)]
    assert len({*explicit, *automatic}) == 9
    for product_id in explicit:
        request = pb.GetProductRequest(product_id=product_id)
        assert (await ask(inventory.stub.GetProduct, request)).name == "Explicit"


async def test_ids_do_not_collide_when_many_create_products_at_once(
    inventory: Inventory,
) -> None:
    last = (await create_product(inventory)).id
    created = await asyncio.gather(
        *(
            create_product(inventory, product_id=last + 1 + number // 2 if number % 2 else None)
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
    async with refused(inventory, Code.INVALID_ARGUMENT, reason):
        await create_product(inventory, **{"stock": 1, **fields})


async def test_a_product_that_does_not_exist_is_not_found(inventory: Inventory) -> None:
    mask = FieldMask(paths=["name"])
    renamed = pb.Product(id=UNKNOWN, name="Tea")
    adjustment = pb.AdjustStockRequest(product_id=UNKNOWN, delta=1, reason="found")
    stub = inventory.stub
    async with refused(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await ask(stub.GetProduct, pb.GetProductRequest(product_id=UNKNOWN))
    async with refused(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await ask(stub.UpdateProduct, pb.UpdateProductRequest(product=renamed, update_mask=mask))
    async with refused(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await ask(stub.AdjustStock, adjustment)
    async with refused(inventory, Code.NOT_FOUND, "PRODUCT_NOT_FOUND"):
        await list_movements(inventory, UNKNOWN)


async def list_products(
    inventory: Inventory, query: str, page_size: int = 0, page_token: str = ""
) -> pb.ListProductsResponse:
    request = pb.ListProductsRequest(query=query, page_size=page_size, page_token=page_token)
    return await ask(inventory.stub.ListProducts, request)


async def test_pages_list_every_product_once_by_ascending_id(
    inventory: Inventory,
) -> None:
    created = [(await create_product(inventory, name=f"Deep {number}")).id for number in range(23)]
    page = await list_products(inventory, "Deep", 4)
    found = list(page.products)
    while page.next_page_token:
        assert len(page.products) == 4
        # What is added meanwhile comes at the end and shifts nothing.
        created.append((await create_product(inventory, name="Deep, and late")).id)
        page = await list_products(inventory, "Deep", 4, page.next_page_token)
        found += page.products
    assert [product.id for product in found] == created == sorted(created)


async def test_a_page_that_ends_with_the_last_product_has_no_next_page(
    inventory: Inventory,
) -> None:
    for _ in range(4):
        await create_product(inventory, name="Exactly four")
    page = await list_products(inventory, "Exactly four", 4)
    assert (len(page.products), page.next_page_token) == (4, "")


async def test_a_page_has_20_products_by_default_and_100_at_most(inventory: Inventory) -> None:
    await asyncio.gather(*(create_product(inventory, name="Many") for _ in range(103)))
    assert len((await list_products(inventory, "Many")).products) == 20
    page = await list_products(inventory, "Many", 1000)
    assert len(page.products) == 100
    assert len((await list_products(inventory, "Many", 100, page.next_page_token)).products) == 3


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
    product = await create_product(inventory, name=name)
    await create_product(inventory, name="100x Wool, snakeXcase, Oolong, Gold")
    assert [found.id for found in (await list_products(inventory, query)).products] == [product.id]


@pytest.mark.parametrize("query", ["a\0b", "q" * 201])
async def test_a_query_that_no_name_can_contain_is_refused(
    inventory: Inventory, query: str
) -> None:
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_QUERY"):
        await list_products(inventory, query)


@pytest.mark.parametrize("token", ["!", "bm9uZQ", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"])
async def test_an_invalid_page_token_is_refused(inventory: Inventory, token: str) -> None:
    product = await create_product(inventory)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await list_products(inventory, "", page_token=token)
    request = pb.ListStockMovementsRequest(product_id=product.id, page_token=token)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await ask(inventory.stub.ListStockMovements, request)


async def test_a_negative_page_size_is_refused(inventory: Inventory) -> None:
    product = await create_product(inventory)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await list_products(inventory, "", -1)
    request = pb.ListStockMovementsRequest(product_id=product.id, page_size=-1)
    async with refused(inventory, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await ask(inventory.stub.ListStockMovements, request)


async def update_product(inventory: Inventory, product: pb.Product, *paths: str) -> pb.Product:
    request = pb.UpdateProductRequest(product=product, update_mask=FieldMask(paths=paths))
    return await ask(inventory.stub.UpdateProduct, request)


async def test_only_the_fields_in_the_mask_are_changed(inventory: Inventory) -> None:
    product = await create_product(inventory, 5, description="Old")
    wanted = pb.Product(id=product.id, name="New", description="New", price_cents=1, stock=99)
    changed = await update_product(inventory, wanted, "price_cents")
    assert (changed.price_cents, changed.name, changed.description) == (1, "Tea", "Old")
    assert changed.update_time.ToNanoseconds() > product.update_time.ToNanoseconds()
    changed = await update_product(inventory, wanted, "name", "description")
    assert (changed.price_cents, changed.name, changed.description) == (1, "New", "New")
    assert (changed.stock, changed.create_time) == (5, product.create_time)
    found = await ask(inventory.stub.GetProduct, pb.GetProductRequest(product_id=product.id))
    assert found == changed


async def test_a_description_can_be_emptied(inventory: Inventory) -> None:
    product = await create_product(inventory, description="Old")
    assert not (
        await update_product(inventory, pb.Product(id=product.id), "description")
    ).description


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
    product = await create_product(inventory)
    async with refused(inventory, Code.INVALID_ARGUMENT, reason):
        await update_product(inventory, pb.Product(id=product.id, **fields), *paths)
