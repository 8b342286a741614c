"""Probes of a running RabbitMQ: its AMQP port and its management page."""

import asyncio
import base64
import logging
import socket
from urllib.error import URLError
from urllib.request import Request, urlopen

import aiormq
from aiormq.exceptions import AMQPError
from pamqp.exceptions import PAMQPException

from launcher.rabbitmq.endpoint import Endpoint

_TIMEOUT_SECONDS = 5

# The result of a probe is its return value: aiormq must not log it as well.
logging.getLogger("aiormq").addHandler(logging.NullHandler())


def connection_error(url: str) -> str | None:
    """Why a client cannot connect and log in at `url`; None if it can."""
    return asyncio.run(_connection_error(url))


async def _connection_error(url: str) -> str | None:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            connection = await aiormq.connect(url)
            await connection.close()
    except TimeoutError:
        return f"no AMQP response within {_TIMEOUT_SECONDS} s"
    except (OSError, AMQPError, PAMQPException) as error:
        return str(error) or type(error).__name__
    return None


def is_listening(endpoint: Endpoint) -> bool:
    """Whether a program listens on the AMQP port."""
    try:
        address = (endpoint.host, endpoint.port)
        socket.create_connection(address, timeout=_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def has_management_page(endpoint: Endpoint) -> bool:
    """Whether the management page is available and accepts the login of the AMQP URL."""
    login = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
    url = f"{endpoint.management_url}api/overview"
    request = Request(url, headers={"Authorization": f"Basic {login}"})  # noqa: S310
    try:
        with urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310 # nosec B310: http, see above
            return True
    except (URLError, OSError):
        return False
