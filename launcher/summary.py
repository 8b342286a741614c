"""What a person needs to know once the system runs."""

import shlex
from collections.abc import Mapping

from rich.console import Console

from launcher.environment.variables import local_address, port_variables
from launcher.layout import Layout
from launcher.rabbitmq import probe
from launcher.services import GATEWAY, POSTGRES, RABBITMQ
from launcher.startup import RunningSystem
from launcher.supervisor.supervisord import Supervisor


def print_summary(
    console: Console, layout: Layout, system: RunningSystem, given: Mapping[str, str]
) -> None:
    """Print what runs where and how to use it; never a secret.

    `given` is the user's own environment: its password takes precedence over the generated one.
    """
    pids = {state.name: state.pid for state in Supervisor(layout).states()}
    console.print(f"\n{'NAME':<18} {'PID':<8} ADDRESS")
    for name, address in _addresses(layout, system).items():
        console.print(f"{name:<18} {pids.get(name, '-'):<8} {address}")
    console.print()
    _print_line(console, "RabbitMQ", _management_page(system))
    if system.services:
        gateway = local_address(system.environment, GATEWAY.port_variable)
        _print_line(
            console, "Gateway", f"http://{gateway}/  (documentation: http://{gateway}/docs)"
        )
        _print_line(console, "Metrics", ", ".join(_metrics_pages(system, gateway)))
        _print_line(console, "Administrator", _login_command(layout, system, gateway, given))
    else:
        _print_line(console, "Addresses", str(layout.environment_file))
    _print_line(console, "Logs", str(layout.logs))


def _print_line(console: Console, label: str, text: str) -> None:
    console.print(f"{label + ':':<15}{text}")


def _addresses(layout: Layout, system: RunningSystem) -> dict[str, str]:
    endpoint = system.broker.endpoint
    addresses = {}
    if any(state.name == POSTGRES for state in Supervisor(layout).states()):
        addresses[POSTGRES] = f"{layout.sockets / POSTGRES} (unix socket)"
    addresses[RABBITMQ] = f"{endpoint.host}:{endpoint.port} ({system.broker.origin})"
    for service in system.services:
        addresses[service.name] = local_address(system.environment, service.port_variable)
    return addresses


def _management_page(system: RunningSystem) -> str:
    endpoint = system.broker.endpoint
    if not probe.has_management_page(endpoint):
        return (
            f"no management page at {endpoint.management_url}"
            " (rabbitmq-plugins enable rabbitmq_management)"
        )
    is_default = {endpoint.user, endpoint.password} == {"guest"}
    login = "guest, guest" if is_default else "as in RABBITMQ_URL"
    return f"{endpoint.management_url}  (login: {login})"


def _metrics_pages(system: RunningSystem, gateway: str) -> list[str]:
    """The pages for Prometheus."""
    variables = [service.metrics_variable for service in system.services if service.metrics_port]
    addresses = [
        local_address(system.environment, variable)
        for variable in port_variables(system.services, system.environment)
        if variable in variables
    ]
    return [f"http://{address}/metrics" for address in (gateway, *addresses)]


def _login_command(
    layout: Layout, system: RunningSystem, gateway: str, given: Mapping[str, str]
) -> str:
    """A shell command that logs in as the administrator, without showing the password."""
    email = system.environment["ADMIN_EMAIL"]
    body = rf'"{{\"email\":\"{email}\",\"password\":\"$ADMIN_PASSWORD\"}}"'
    curl = f"curl -s http://{gateway}/v1/auth/login -H 'content-type: application/json' -d {body}"
    if given.get("ADMIN_PASSWORD"):
        return curl
    return f"(. {shlex.quote(str(layout.secrets_file))}; {curl})"
