"""`python -m api_gateway` serves the REST API."""

import asyncio
import sys

from api_gateway import app, server
from api_gateway.context import open_gateway
from api_gateway.settings import Settings
from service_kit.lifecycle import run


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; /readyz returns 503 a moment before connections are refused."""
    async with (
        open_gateway(settings, stop) as gateway,
        server.serve_http(app.build(gateway), settings),
    ):
        await stop.wait()
        await asyncio.sleep(settings.drain_delay_seconds)


if __name__ == "__main__":
    sys.exit(run("api_gateway", Settings, serve))
