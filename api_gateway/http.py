"""JSON and empty responses, and the headers of every response."""

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

BASE_HEADERS = {
    "Server": "ecommerce",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""On every response: it may not be cached, framed or rendered as a page."""

JSON_HEADERS = {**BASE_HEADERS, "Content-Type": "application/json"}


def json_response(
    data: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`data` as JSON; times are in UTC with a Z."""
    body = orjson.dumps(data, option=orjson.OPT_UTC_Z)
    response = web.Response(body=body, status=status, headers=JSON_HEADERS)
    if headers:
        response.headers.update(headers)
    return response


def empty_response(headers: Mapping[str, str] | None = None) -> web.Response:
    """204 No Content."""
    return web.Response(status=204, headers={**BASE_HEADERS, **(headers or {})})
