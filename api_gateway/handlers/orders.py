"""Orders."""

import asyncio
import re
from collections.abc import Sequence

import structlog
from aiohttp import web

from api_gateway import answers, schemas
from api_gateway.gateway import Call
from api_gateway.problems import Problem
from api_gateway.replies import json_reply
from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

MAX_WAIT_SECONDS = 30
WAIT_MARGIN_SECONDS = 0.5
"""What order_service gets beyond the wait to tell that it is over."""

_ORDER_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)


async def create_order(call: Call, body: schemas.NewOrder) -> web.Response:
    """Place an order; with `Prefer: wait=N`, answer once it is settled or N seconds are over."""
    return await place(call, call.caller.user_id, body.items)


async def list_orders(call: Call, query: schemas.OrderQuery) -> web.Response:
    """List the caller's orders; an administrator's list has everyone's."""
    return json_reply(await call.gateway.orders.list(await _visible_to(call), query))


async def get_order(call: Call) -> web.Response:
    """Show an order."""
    return json_reply(await call.gateway.orders.get(_order_id(call), await _visible_to(call)))


async def cancel_order(call: Call) -> web.Response:
    """Cancel an order; what it took goes back to stock."""
    return json_reply(await call.gateway.orders.cancel(_order_id(call), await _visible_to(call)))


async def place(call: Call, user_id: int, items: Sequence[schemas.NewOrderItem]) -> web.Response:
    """Place an order for the user, heeding the headers Idempotency-Key and Prefer."""
    headers = call.request.headers
    key = headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        fault = answers.Fault(
            pointer="/Idempotency-Key", detail="must be 1 to 255 visible ASCII characters"
        )
        raise Problem("invalid_parameter", errors=[fault])
    order = await call.gateway.orders.create(user_id, items, key or "")
    answer_headers = {"Location": f"/v1/orders/{order['id']}"}
    if "Prefer" in headers and (wait := preferred_wait(headers.getall("Prefer"))):
        order = await _settled(call, order, wait)
        answer_headers["Preference-Applied"] = f"wait={wait}"
    return json_reply(order, 201, answer_headers)


def preferred_wait(values: Sequence[str]) -> int:
    """The seconds that `Prefer: wait=N` (RFC 7240) asks for, 30 at most; 0 without it."""
    found = _WAIT.search(",".join(values))
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


async def _settled(call: Call, order: answers.Order, wait_seconds: int) -> answers.Order:
    """The order as it is once settled, or as it was: it is accepted whatever happens here."""
    if order["status"] != "PENDING":
        return order
    stopping = asyncio.create_task(call.gateway.stopping.wait())
    waiting = asyncio.create_task(
        call.gateway.orders.get(order["id"], order["user_id"], wait_seconds)
    )
    try:
        await asyncio.wait(
            {stopping, waiting},
            timeout=wait_seconds + WAIT_MARGIN_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        return waiting.result() if waiting.done() else order
    except ServiceError as error:
        log.warning("gave up waiting for an order", order_id=order["id"], error=error.message)
        return order
    finally:
        stopping.cancel()
        waiting.cancel()


async def _visible_to(call: Call) -> int:
    """Whose orders the caller may see: their own, or an administrator everyone's (0)."""
    return 0 if await call.is_admin() else call.caller.user_id


def _order_id(call: Call) -> str:
    text = call.request.match_info["order_id"]
    if not _ORDER_ID.fullmatch(text):
        raise Problem("not_found", "there is no such order")
    return text
