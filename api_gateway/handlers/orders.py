"""Orders."""

import asyncio
import re
from collections.abc import Sequence

import structlog
from aiohttp import web

from api_gateway.context import RequestContext
from api_gateway.http import json_response
from api_gateway.problems import Problem
from api_gateway.schemas import requests, responses
from proto.limits import MAX_WAIT_SECONDS
from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

WAIT_MARGIN_SECONDS = 0.5
"""What order_service gets beyond the wait to respond that it is over."""

_ORDER_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)


async def create_order(context: RequestContext, body: requests.NewOrder) -> web.Response:
    """Place an order; with `Prefer: wait=N`, respond once it is settled or after N seconds."""
    return await place_order(context, context.principal.user_id, body.items)


async def list_orders(context: RequestContext, query: requests.OrderQuery) -> web.Response:
    """List the authenticated user's orders, or every user's for an administrator."""
    owner_id = await _owner_filter(context)
    return json_response(await context.gateway.orders.list_orders(owner_id, query))


async def get_order(context: RequestContext) -> web.Response:
    """Get an order."""
    order_id, owner_id = _order_id(context), await _owner_filter(context)
    return json_response(await context.gateway.orders.get_order(order_id, owner_id))


async def cancel_order(context: RequestContext) -> web.Response:
    """Cancel an order and restore its stock."""
    order_id, owner_id = _order_id(context), await _owner_filter(context)
    return json_response(await context.gateway.orders.cancel_order(order_id, owner_id))


async def place_order(
    context: RequestContext, user_id: int, items: Sequence[requests.NewOrderItem]
) -> web.Response:
    """Place an order for the user, with the request's Idempotency-Key and Prefer headers."""
    headers = context.request.headers
    key = headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        error = responses.FieldError(
            pointer="/Idempotency-Key", detail="must be 1 to 255 visible ASCII characters"
        )
        raise Problem("invalid_parameter", errors=[error])
    order = await context.gateway.orders.create_order(user_id, items, key or "")
    response_headers = {"Location": f"/v1/orders/{order['id']}"}
    if "Prefer" in headers and (wait := preferred_wait(headers.getall("Prefer"))):
        order = await _wait_until_settled(context, order, wait)
        response_headers["Preference-Applied"] = f"wait={wait}"
    return json_response(order, 201, response_headers)


def preferred_wait(values: Sequence[str]) -> int:
    """The seconds that `Prefer: wait=N` (RFC 7240) asks for, MAX_WAIT_SECONDS at most; else 0."""
    match = _WAIT.search(",".join(values))
    return min(int(match[1]), MAX_WAIT_SECONDS) if match else 0


async def _wait_until_settled(
    context: RequestContext, order: responses.Order, wait_seconds: int
) -> responses.Order:
    """The order once settled, or `order` after the wait or a failure: it is accepted anyway."""
    if order["status"] != "PENDING":
        return order
    stopping = asyncio.create_task(context.gateway.stopping.wait())
    waiting = asyncio.create_task(
        context.gateway.orders.get_order(order["id"], order["user_id"], wait_seconds)
    )
    try:
        await asyncio.wait(
            {stopping, waiting},
            timeout=wait_seconds + WAIT_MARGIN_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        return waiting.result() if waiting.done() else order
    except ServiceError as error:
        log.warning("waiting for settlement failed", order_id=order["id"], error=error.message)
        return order
    finally:
        stopping.cancel()
        waiting.cancel()


async def _owner_filter(context: RequestContext) -> int:
    """The user whose orders the principal may see; 0 means everyone's, for administrators."""
    return 0 if await context.is_admin() else context.principal.user_id


def _order_id(context: RequestContext) -> str:
    text = context.request.match_info["order_id"]
    if not _ORDER_ID.fullmatch(text):
        raise Problem("not_found", "The order does not exist.")
    return text
