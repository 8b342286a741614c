"""Which RabbitMQ the system uses: one that is there, a private one, or one to install."""

import asyncio
import base64
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import Request, urlopen

import aiormq
from aiormq.exceptions import AMQPError
from pamqp.exceptions import PAMQPException

from launcher import docker_broker, packages, ports, rabbitmq_node
from launcher.endpoint import MANAGEMENT_VARIABLE, Endpoint
from launcher.layout import Layout
from launcher.problem import Problem
from launcher.programs import Program

_PROBE_SECONDS = 5

# A probe that fails is an answer to us, no error to print.
logging.getLogger("aiormq").addHandler(logging.NullHandler())
_PACKAGE_START_SECONDS = 20


@dataclass(frozen=True)
class Broker:
    """The RabbitMQ that was chosen, and how to run it if that is up to us."""

    endpoint: Endpoint
    origin: str
    program: Program | None = None


def choose(layout: Layout, environment: Mapping[str, str], say: Callable[[str], None]) -> Broker:
    """The RabbitMQ at RABBITMQ_URL; else a private node, a container or the package's server.

    Installs the distribution's package, after telling through `say`, if nothing else is left.
    """
    endpoint = Endpoint.from_environment(environment)
    complaint = complaint_of(endpoint.url)
    if not complaint:
        return Broker(endpoint, "was running already")
    if not endpoint.is_local() or endpoint.url.startswith("amqps:"):
        raise Problem(
            f"the RabbitMQ at RABBITMQ_URL ({endpoint.host}) does not answer: {complaint}"
        )
    if _listens(endpoint):
        raise Problem(
            f"what listens on port {endpoint.port} is no RabbitMQ that RABBITMQ_URL can log in to"
            f" ({complaint}): stop it, or set RABBITMQ_URL to another port"
        )
    ports.require_free(endpoint.management_port, "127.0.0.1", MANAGEMENT_VARIABLE)
    script = rabbitmq_node.find_script()
    if script is None and docker_broker.engine_answers():
        program = docker_broker.program(layout, endpoint)
        return Broker(endpoint, "Docker container", program)
    if script is None:
        packages.install("rabbitmq-server", say)
        if _package_started_it(endpoint):
            packages.enable_management_page()
            return Broker(endpoint, "started by its package")
        script = rabbitmq_node.find_script()
    if script is None:
        raise Problem(
            "the package rabbitmq-server was installed, but its server is not to be found"
        )
    return Broker(endpoint, "private node", rabbitmq_node.program(layout, endpoint, script))


def complaint_of(url: str) -> str:
    """Empty when a client can log in at `url` and use it; otherwise why not."""
    return asyncio.run(_complaint_of(url))


async def _complaint_of(url: str) -> str:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            connection = await aiormq.connect(url)
            await connection.close()
    except TimeoutError:
        return "no AMQP answer"
    except (OSError, AMQPError, PAMQPException) as error:
        return str(error) or type(error).__name__
    return ""


def management_answers(endpoint: Endpoint) -> bool:
    """Whether the management page is there and takes the URL's login."""
    login = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
    url = f"{endpoint.management_url}api/overview"
    request = Request(url, headers={"Authorization": f"Basic {login}"})  # noqa: S310
    try:
        with urlopen(request, timeout=_PROBE_SECONDS):  # noqa: S310 # nosec B310: http, see above
            return True
    except (URLError, OSError):
        return False


def _listens(endpoint: Endpoint) -> bool:
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _package_started_it(endpoint: Endpoint) -> bool:
    """Whether the fresh package's own server comes up at `endpoint`."""
    deadline = time.monotonic() + _PACKAGE_START_SECONDS
    while _listens(endpoint) and time.monotonic() < deadline:
        if not complaint_of(endpoint.url):
            return True
        time.sleep(0.5)
    return False
