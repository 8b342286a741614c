"""Which RabbitMQ the system uses: a running one, a private node, a container or a package."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launcher import apt, ports
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.rabbitmq import container, package, private_node, probe
from launcher.rabbitmq.endpoint import MANAGEMENT_VARIABLE, Endpoint
from launcher.supervisor.programs import Program

_PACKAGE_START_SECONDS = 20
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Broker:
    """The RabbitMQ that was chosen; `program` runs it, unless it is running already."""

    endpoint: Endpoint
    origin: str
    program: Program | None = None


def choose_broker(
    layout: Layout, environment: Mapping[str, str], notify: Callable[[str], None]
) -> Broker:
    """The RabbitMQ at RABBITMQ_URL; else a private node, a container or the package's server.

    Installs the distribution's package only if nothing else is available, and says so first.
    """
    # A package that is being installed has its files in place before they are usable, and may
    # start a server of its own.
    apt.wait_for_others(notify)
    endpoint = Endpoint.from_environment(environment)
    error = probe.connection_error(endpoint.url)
    if error is None:
        return Broker(endpoint, "already running")
    _require_startable(endpoint, error)
    script = private_node.find_script()
    if script is None and container.engine_available():
        return Broker(endpoint, "Docker container", container.program(layout, endpoint))
    if script is None:
        package.install(notify)
        if _package_starts_server(endpoint):
            package.enable_management_page()
            return Broker(endpoint, "server of the package rabbitmq-server")
        script = private_node.find_script()
    if script is None:
        raise LauncherError("the package rabbitmq-server is installed, but has no server script")
    return Broker(endpoint, "private node", private_node.program(layout, endpoint, script))


def _require_startable(endpoint: Endpoint, error: str) -> None:
    """Raise a LauncherError unless a broker can be started at `endpoint`.

    `error` is why a client cannot connect there.
    """
    if not endpoint.is_local() or endpoint.url.startswith("amqps:"):
        raise LauncherError(
            f"the RabbitMQ at RABBITMQ_URL ({endpoint.host}) is unavailable: {error}"
        )
    if probe.is_listening(endpoint):
        raise LauncherError(
            f"port {endpoint.port} is in use by a program that does not accept RABBITMQ_URL"
            f" ({error}): stop it, or set RABBITMQ_URL to another port"
        )
    ports.require_free(endpoint.management_port, "127.0.0.1", MANAGEMENT_VARIABLE)


def _package_starts_server(endpoint: Endpoint) -> bool:
    """Whether the server that the new package starts on its own becomes available at `endpoint`."""
    deadline = time.monotonic() + _PACKAGE_START_SECONDS
    while probe.is_listening(endpoint) and time.monotonic() < deadline:
        if probe.connection_error(endpoint.url) is None:
            return True
        time.sleep(_PAUSE_SECONDS)
    return False
