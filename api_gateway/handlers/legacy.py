"""Legacy paths: those of earlier systems, over the same operations.

`/register` and `/login` need no handlers of their own.
"""

from aiohttp import web

from api_gateway.context import RequestContext
from api_gateway.handlers.orders import place_order
from api_gateway.http import json_response
from api_gateway.problems import Problem
from api_gateway.schemas import requests
from api_gateway.schemas.money import format_cents


async def check_stock(context: RequestContext, body: requests.StockItem) -> web.Response:
    """Check whether the stock covers a quantity."""
    inventory = context.gateway.inventory
    return json_response(await inventory.check_stock(body.product_id, body.quantity))


async def update_stock(context: RequestContext, body: requests.StockItem) -> web.Response:
    """Take a quantity out of stock."""
    inventory = context.gateway.inventory
    stock = await inventory.adjust_stock(body.product_id, -body.quantity, "update_stock")
    return json_response(stock)


async def create_order(context: RequestContext, body: requests.LegacyOrder) -> web.Response:
    """Place an order at the given prices; only administrators may name another user."""
    if body.user_id != context.principal.user_id:
        await context.require_admin()
    for item in body.items:
        total = item.unit_price * item.quantity
        if item.total_price != total:
            raise Problem(
                "price_changed",
                f"The total_price must be unit_price times quantity: {format_cents(total)}.",
                metadata={"product_id": item.product_id},
            )
    items = [
        requests.NewOrderItem.model_construct(
            product_id=item.product_id, quantity=item.quantity, unit_price=item.unit_price
        )
        for item in body.items
    ]
    return await place_order(context, body.user_id, items)
