"""The product catalogue and its stock."""

from tests.unit.gateway.backend import ADMIN_ID, Shop
from tests.unit.gateway.checks import assert_json, assert_problem


async def test_products_are_created_updated_and_listed_and_an_unknown_one_is_not_found(
    shop: Shop,
) -> None:
    admin = shop.bearer(ADMIN_ID)
    new = {"id": 101, "name": "Phone", "price": "699.90", "stock": 3, "description": "small"}
    created = await shop.client.post("/v1/products", json=new, headers=admin)
    assert assert_json(created, 201, "Product")["price"] == "699.90"
    assert created.headers["Location"] == "/v1/products/101"
    again = await shop.client.post("/v1/products", json=new, headers=admin)
    assert_problem(again, 409, "product_exists")
    changed = await shop.client.patch("/v1/products/101", json={"price": 650.5}, headers=admin)
    product = assert_json(changed, 200, "Product")
    assert (product["price"], product["name"]) == ("650.50", "Phone")
    listed = await shop.client.get("/v1/products", params={"query": "PHO", "page_size": 5})
    assert len(assert_json(listed, 200, "ProductPage")["products"]) == 1  # type: ignore[arg-type]
    bad_page = await shop.client.get("/v1/products", params={"page_token": "bm90aGluZw"})
    assert_problem(bad_page, 422, "invalid_page_token")
    bad_size = await shop.client.get("/v1/products", params={"page_size": "0"})
    assert assert_problem(bad_size, 422, "invalid_parameter")["errors"]
    ledger = await shop.client.get("/v1/products/101/stock-movements", headers=admin)
    assert_json(ledger, 200, "StockMovementPage")
    for missing in ("999", "0", "x", "1.0", "9" * 19, "9" * 30, "%00"):
        assert_problem(await shop.client.get(f"/v1/products/{missing}"), 404, "not_found")


async def test_the_legacy_paths_check_and_update_stock(shop: Shop) -> None:
    asked = await shop.client.post("/check_stock", json={"product_id": 1, "quantity": 11})
    assert assert_json(asked, 200, "Availability") == {"available": False, "stock": 10}
    unknown = await shop.client.post("/check_stock", json={"product_id": 7, "quantity": 1})
    assert_problem(unknown, 404, "not_found")
    admin = shop.bearer(ADMIN_ID)
    take = {"product_id": 1, "quantity": 4}
    taken = await shop.client.post("/update_stock", json=take, headers=admin)
    assert assert_json(taken, 200, "Stock") == {"product_id": 1, "stock": 6}
    short = {"product_id": 1, "quantity": 7}
    refused = await shop.client.post("/update_stock", json=short, headers=admin)
    problem = assert_problem(refused, 409, "insufficient_stock")
    assert problem["metadata"] == {"product_id": 1, "requested": 7, "available": 6}
