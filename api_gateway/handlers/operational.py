"""For those who run the system, and those who read its manual."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api_gateway import answers
from api_gateway.gateway import Call
from api_gateway.problems import Problem
from api_gateway.replies import BASE_HEADERS, JSON_HEADERS, json_reply

_STATIC = Path(__file__).parent.parent / "static"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE_HEADERS = {
    **BASE_HEADERS,
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}


async def healthz(_call: Call) -> web.Response:
    """Tell that the process is alive."""
    return json_reply(answers.Health(status="alive"))


async def readyz(call: Call) -> web.Response:
    """Tell whether requests can be served, and how each service behind is."""
    if call.gateway.stopping.is_set():
        raise Problem("not_ready", "the gateway is stopping")
    neighbours = call.gateway.neighbours
    serving = await asyncio.gather(*(one.is_serving() for one in neighbours.values()))
    states = {
        name: "serving" if one else "not serving"
        for name, one in zip(neighbours, serving, strict=True)
    }
    if not all(serving):
        raise Problem("not_ready", metadata={"neighbours": states})
    return json_reply({"status": "ready", "neighbours": states})


async def metrics(call: Call) -> web.Response:
    """Show Prometheus metrics to those networks that may see them."""
    settings, headers = call.gateway.settings, call.request.headers
    # Without trusted proxies this header means that the peer is not the client.
    hidden = "X-Forwarded-For" in headers and not settings.trusted_proxy_hops
    if hidden or not _is_within(call.client_address, settings.metrics_networks):
        raise Problem("not_found")
    return web.Response(
        body=generate_latest(), headers={**BASE_HEADERS, "Content-Type": CONTENT_TYPE_LATEST}
    )


async def openapi(description: bytes, _call: Call) -> web.Response:
    """Show the description of this API (OpenAPI 3.1)."""
    return web.Response(body=description, headers=JSON_HEADERS)


async def docs(_call: Call) -> web.FileResponse:
    """Show this description as a page."""
    return web.FileResponse(_STATIC / "docs.html", headers=_PAGE_HEADERS)


async def docs_asset(call: Call) -> web.FileResponse:
    """Serve a part of the page."""
    name = call.request.match_info["name"]
    if name not in _ASSETS:
        raise Problem("not_found")
    headers = {"Content-Type": _ASSETS[name], "Cache-Control": "public, max-age=3600"}
    return web.FileResponse(_STATIC / name, headers={**BASE_HEADERS, **headers})


def _is_within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any((getattr(parsed, "ipv4_mapped", None) or parsed) in network for network in networks)
