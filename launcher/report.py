"""What a person is told once the system runs."""

import shlex
from collections.abc import Mapping

from rich.console import Console

from launcher import broker, environment
from launcher.layout import GATEWAY, POSTGRES, RABBITMQ, Layout
from launcher.startup import RunningSystem
from launcher.supervision import Supervisor


def show(console: Console, layout: Layout, system: RunningSystem, given: Mapping[str, str]) -> None:
    """Print what runs where, and how to use, watch and stop it; never a secret.

    `given` is the user's own environment: what it sets is not read from the generated secrets.
    """
    pids = {state.name: state.pid for state in Supervisor(layout).states()}
    console.print(f"\n{'NAME':<18} {'PID':<8} ADDRESS")
    for name, address in _addresses(layout, system).items():
        console.print(f"{name:<18} {pids.get(name, '-'):<8} {address}")
    console.print()
    _line(console, "RabbitMQ", _management(system))
    if system.services:
        gateway = environment.own_address(system.environment, GATEWAY.port_variable)
        _line(console, "Gateway", f"http://{gateway}/  (documentation: http://{gateway}/docs)")
        _line(console, "Metrics", ", ".join(_metrics(system, gateway)))
        _line(console, "Administrator", _login(layout, system, gateway, given))
    else:
        _line(console, "Addresses", str(layout.environment_file))
    _line(console, "Logs", str(layout.logs))


def _line(console: Console, label: str, text: str) -> None:
    console.print(f"{label + ':':<15}{text}")


def _addresses(layout: Layout, system: RunningSystem) -> dict[str, str]:
    endpoint = system.broker.endpoint
    addresses = {}
    if any(state.name == POSTGRES for state in Supervisor(layout).states()):
        addresses[POSTGRES] = f"{layout.sockets / POSTGRES} (unix socket)"
    addresses[RABBITMQ] = f"{endpoint.host}:{endpoint.port} ({system.broker.origin})"
    for service in system.services:
        address = environment.own_address(system.environment, service.port_variable)
        addresses[service.name] = address
    return addresses


def _management(system: RunningSystem) -> str:
    endpoint = system.broker.endpoint
    if not broker.management_answers(endpoint):
        return (
            f"no management page at {endpoint.management_url}"
            " (rabbitmq-plugins enable rabbitmq_management)"
        )
    usual = {endpoint.user, endpoint.password} == {"guest"}
    login = "guest, guest" if usual else "as in RABBITMQ_URL"
    return f"{endpoint.management_url}  (login: {login})"


def _metrics(system: RunningSystem, gateway: str) -> list[str]:
    """The pages for Prometheus."""
    pages = [service.metrics_variable for service in system.services if service.metrics_port]
    own = [
        environment.own_address(system.environment, variable)
        for variable in environment.port_variables(system.services, system.environment)
        if variable in pages
    ]
    return [f"http://{address}/metrics" for address in (gateway, *own)]


def _login(layout: Layout, system: RunningSystem, gateway: str, given: Mapping[str, str]) -> str:
    """A line of shell that logs in as the administrator, without showing the password."""
    email = system.environment["ADMIN_EMAIL"]
    body = rf'"{{\"email\":\"{email}\",\"password\":\"$ADMIN_PASSWORD\"}}"'
    curl = f"curl -s http://{gateway}/v1/auth/login -H 'content-type: application/json' -d {body}"
    if given.get("ADMIN_PASSWORD"):
        return curl
    return f"(. {shlex.quote(str(layout.secrets_file))}; {curl})"
