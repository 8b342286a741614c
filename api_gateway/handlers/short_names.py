"""The short names that users of the earlier systems know, over the same operations.

`/register` and `/login` need nothing of their own.
"""

from aiohttp import web

from api_gateway import schemas
from api_gateway.gateway import Call
from api_gateway.handlers import orders
from api_gateway.money import to_text
from api_gateway.problems import Problem
from api_gateway.replies import json_reply


async def check_stock(call: Call, body: schemas.StockItem) -> web.Response:
    """Ask whether the stock covers a quantity."""
    return json_reply(await call.gateway.inventory.check(body.product_id, body.quantity))


async def update_stock(call: Call, body: schemas.StockItem) -> web.Response:
    """Take a quantity out of stock."""
    return json_reply(
        await call.gateway.inventory.adjust(body.product_id, -body.quantity, "update_stock")
    )


async def create_order(call: Call, body: schemas.OrderForUser) -> web.Response:
    """Place an order at the given prices; for another user only as an administrator."""
    if body.user_id != call.caller.user_id:
        await call.require_admin()
    for item in body.items:
        total = item.unit_price * item.quantity
        if item.total_price != total:
            raise Problem(
                "price_changed",
                f"at this unit_price the total_price is {to_text(total)}",
                metadata={"product_id": item.product_id},
            )
    items = [
        schemas.NewOrderItem.model_construct(
            product_id=item.product_id, quantity=item.quantity, unit_price=item.unit_price
        )
        for item in body.items
    ]
    return await orders.place(call, body.user_id, items)
