"""The product catalogue and its stock."""

import re

from aiohttp import web

from api_gateway.context import RequestContext
from api_gateway.http import json_response
from api_gateway.problems import Problem
from api_gateway.schemas import requests
from api_gateway.schemas.fields import MAX_ID


async def list_products(context: RequestContext, query: requests.ProductQuery) -> web.Response:
    """List products."""
    return json_response(await context.gateway.inventory.list_products(query))


async def get_product(context: RequestContext) -> web.Response:
    """Get a product."""
    return json_response(await context.gateway.inventory.get_product(_product_id(context)))


async def create_product(context: RequestContext, body: requests.NewProduct) -> web.Response:
    """Create a product."""
    product = await context.gateway.inventory.create_product(body)
    return json_response(product, 201, {"Location": f"/v1/products/{product['id']}"})


async def update_product(context: RequestContext, body: requests.ProductChanges) -> web.Response:
    """Update a product."""
    product_id = _product_id(context)
    return json_response(await context.gateway.inventory.update_product(product_id, body))


async def adjust_stock(context: RequestContext, body: requests.StockAdjustment) -> web.Response:
    """Adjust a product's stock manually."""
    inventory, product_id = context.gateway.inventory, _product_id(context)
    return json_response(await inventory.adjust_stock(product_id, body.delta, body.reason), 201)


async def list_stock_movements(context: RequestContext, query: requests.PageQuery) -> web.Response:
    """List a product's stock movements, newest first."""
    product_id = _product_id(context)
    return json_response(await context.gateway.inventory.list_stock_movements(product_id, query))


def _product_id(context: RequestContext) -> int:
    text = context.request.match_info["product_id"]
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) > MAX_ID:
        raise Problem("not_found", "The product does not exist.")
    return int(text)
