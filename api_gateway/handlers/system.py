"""Health, metrics and the documentation of the API."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api_gateway.context import RequestContext
from api_gateway.http import BASE_HEADERS, JSON_HEADERS, json_response
from api_gateway.problems import Problem
from api_gateway.schemas import responses

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


async def healthz(_context: RequestContext) -> web.Response:
    """Check that the process is alive."""
    return json_response(responses.Health(status="alive"))


async def readyz(context: RequestContext) -> web.Response:
    """Check that requests can be served, with the state of each dependency."""
    if context.gateway.stopping.is_set():
        raise Problem("not_ready", "The gateway is shutting down.")
    dependencies = context.gateway.dependencies
    serving = await asyncio.gather(*(client.is_serving() for client in dependencies.values()))
    states = {
        name: "serving" if is_serving else "not serving"
        for name, is_serving in zip(dependencies, serving, strict=True)
    }
    if not all(serving):
        raise Problem("not_ready", metadata={"dependencies": states})
    return json_response({"status": "ready", "dependencies": states})


async def metrics(context: RequestContext) -> web.Response:
    """Get Prometheus metrics, from the networks that may read them."""
    settings, headers = context.gateway.settings, context.request.headers
    # Without trusted proxies this header means that the peer is not the client.
    hidden = "X-Forwarded-For" in headers and not settings.trusted_proxy_hops
    if hidden or not _is_within(context.client_address, settings.metrics_networks):
        raise Problem("not_found")
    return web.Response(
        body=generate_latest(), headers={**BASE_HEADERS, "Content-Type": CONTENT_TYPE_LATEST}
    )


def openapi(document: bytes) -> Callable[[RequestContext], Awaitable[web.Response]]:
    """A handler that serves the OpenAPI document."""

    async def openapi_document(_context: RequestContext) -> web.Response:
        """Get the OpenAPI document of this API."""
        return web.Response(body=document, headers=JSON_HEADERS)

    return openapi_document


async def docs(_context: RequestContext) -> web.FileResponse:
    """Get the OpenAPI document as a page."""
    return web.FileResponse(_STATIC / "docs.html", headers=_PAGE_HEADERS)


async def docs_asset(context: RequestContext) -> web.FileResponse:
    """Get a file that the page needs."""
    name = context.request.match_info["name"]
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
