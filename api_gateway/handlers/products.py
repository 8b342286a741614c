"""The catalogue and its stock."""

import re

from aiohttp import web

from api_gateway import schemas
from api_gateway.gateway import Call
from api_gateway.problems import Problem
from api_gateway.replies import json_reply


async def list_products(call: Call, query: schemas.ProductQuery) -> web.Response:
    """List products."""
    return json_reply(await call.gateway.inventory.list(query))


async def get_product(call: Call) -> web.Response:
    """Show a product."""
    return json_reply(await call.gateway.inventory.get(_product_id(call)))


async def create_product(call: Call, body: schemas.NewProduct) -> web.Response:
    """Add a product."""
    product = await call.gateway.inventory.create(body)
    return json_reply(product, 201, {"Location": f"/v1/products/{product['id']}"})


async def update_product(call: Call, body: schemas.ProductChanges) -> web.Response:
    """Change a product."""
    return json_reply(await call.gateway.inventory.update(_product_id(call), body))


async def adjust_stock(call: Call, body: schemas.StockAdjustment) -> web.Response:
    """Move stock by hand."""
    stock = await call.gateway.inventory.adjust(_product_id(call), body.delta, body.reason)
    return json_reply(stock, 201)


async def list_stock_movements(call: Call, query: schemas.Page) -> web.Response:
    """Show a product's ledger."""
    return json_reply(await call.gateway.inventory.movements(_product_id(call), query))


def _product_id(call: Call) -> int:
    text = call.request.match_info["product_id"]
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) > schemas.MAX_ID:
        raise Problem("not_found", "there is no such product")
    return int(text)
