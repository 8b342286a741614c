"""The environment that every service is started with: the user's own, completed by defaults."""

from collections.abc import Mapping, Sequence

from launcher import ports
from launcher.environment import secrets
from launcher.layout import Layout
from launcher.services import CONSUMER, SERVICES, Service
from service_kit.settings import DEFAULT_BROKER_URL


def complete(layout: Layout, given: Mapping[str, str]) -> dict[str, str]:
    """`given`, with a secret, port or address for each variable that is unset or empty.

    Values are not checked here: see `validation`. Database URLs are not added: `startup` does that
    for the databases that it runs.
    """
    environment = secrets.read_or_generate(layout)
    environment |= {name: value for name, value in given.items() if value}
    environment["RUN_DIR"] = str(layout.run_dir)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("BIND_HOST", "127.0.0.1")
    environment.setdefault("RABBITMQ_URL", DEFAULT_BROKER_URL)
    _set_default_ports(environment)
    for service in SERVICES:
        address = local_address(environment, service.port_variable)
        environment.setdefault(service.address_variable, address)
    return environment


def port_variables(services: Sequence[Service], environment: Mapping[str, str]) -> list[str]:
    """The variables of all ports that `services` listen on; a metrics port of 0 means none."""
    metrics = [service.metrics_variable for service in services if service.metrics_port]
    return [
        *(service.port_variable for service in services),
        *(variable for variable in metrics if environment[variable] != "0"),
    ]


def local_address(environment: Mapping[str, str], port_variable: str) -> str:
    """`host:port` at which this machine reaches the server that listens on `port_variable`."""
    host = ports.connect_host(environment["BIND_HOST"])
    bracketed = f"[{host}]" if ":" in host else host
    return f"{bracketed}:{environment[port_variable]}"


def _set_default_ports(environment: dict[str, str]) -> None:
    for service in SERVICES:
        port = service.default_port
        # No client needs to know the consumer's port, so a port in use is no reason to fail.
        if service is CONSUMER:
            port = _available_port(port, environment["BIND_HOST"])
        environment.setdefault(service.port_variable, str(port))
        if service.metrics_port:
            port = _available_port(service.metrics_port, environment["BIND_HOST"])
            environment.setdefault(service.metrics_variable, str(port))


def _available_port(preferred: int, host: str) -> int:
    return preferred if ports.is_free(preferred, host) else ports.free_port()
