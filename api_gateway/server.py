"""The HTTP server: limits on slow clients, and a graceful shutdown."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import structlog
from aiohttp import web

from api_gateway.problems import Problem, problem_response
from api_gateway.settings import Settings
from service_kit.errors import PortUnavailable

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 8.0
"""How long requests in progress may take to finish once the server stops."""
LINGERING_SECONDS = 2.0
"""How long a refused body is still read, so that its sender sees the response."""
_BACKLOG = 1024


@asynccontextmanager
async def serve_http(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    """Serve `app` inside the block; then accept no more and finish requests in progress.

    Raises PortUnavailable.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    manager, loop = cast("web.Server", runner.server), asyncio.get_running_loop()

    def connection() -> _Connection:
        # aiohttp closes a connection that does not complete a request's head in this time,
        # counted from its start or its last response, whether it is silent or sends byte by byte.
        return _Connection(
            manager,
            loop=loop,
            keepalive_timeout=settings.http_idle_seconds,
            lingering_time=LINGERING_SECONDS,
            auto_decompress=False,
        )

    host, port = settings.bind_host, settings.api_gateway_port
    try:
        listener = await loop.create_server(connection, host, port, backlog=_BACKLOG)
    except OSError as error:
        await runner.cleanup()
        raise PortUnavailable(f"cannot listen on {host}:{port}: is the port in use?") from error
    log.info("serving", address=f"{host}:{port}")
    try:
        yield
    finally:
        listener.close()
        await runner.cleanup()


class _Connection(web.RequestHandler):
    """A connection that also returns problem documents for malformed requests."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to a request that did not reach the application, or that broke it."""
        request_id = secrets.token_hex(16)
        if status < 500:  # noqa: PLR2004 - client errors
            # The message would quote the request, and with it perhaps a token.
            error = type(exc).__name__
            log.info("malformed request", client=request.remote, error=error, request_id=request_id)
        else:
            log.error("request failed", exc_info=exc, request_id=request_id)
        response = problem_response(
            Problem("bad_request" if status < 500 else "internal"),  # noqa: PLR2004
            request_id,
        )
        response.force_close()
        return response
