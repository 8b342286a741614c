"""Reports every missing or invalid variable at once, before anything is installed or started."""

from collections.abc import Mapping, Sequence

from launcher import ports
from launcher.environment import service_settings
from launcher.environment.variables import port_variables
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.rabbitmq import endpoint
from launcher.services import SERVICES, Service

_DATABASE_SCHEME = "postgresql+asyncpg://"


def require_valid(
    layout: Layout, services: Sequence[Service], environment: Mapping[str, str]
) -> None:
    """Raise a LauncherError that names each variable that the launcher or a service rejects."""
    invalid = service_settings.invalid_variables(layout, services, environment) if services else {}
    invalid |= invalid_variables(environment)
    if invalid:
        lines = "".join(f"\n  {variable}: {reason}" for variable, reason in invalid.items())
        raise LauncherError(f"settings are missing or invalid:{lines}")


def invalid_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with each variable of a completed environment that the launcher reads."""
    return (
        _invalid_ports(environment)
        | _invalid_database_urls(environment)
        | endpoint.invalid_variables(environment)
    )


def _invalid_ports(environment: Mapping[str, str]) -> dict[str, str]:
    invalid, users = dict[str, str](), dict[str, str]()
    for variable in port_variables(SERVICES, environment):
        value = environment[variable]
        if not ports.is_port_number(value):
            invalid[variable] = f"{value!r} is not a port number"
        elif value in users:
            invalid[variable] = f"{value} is also the value of {users[value]}"
        users.setdefault(value, variable)
    return invalid


def _invalid_database_urls(environment: Mapping[str, str]) -> dict[str, str]:
    variables = [service.database_variable for service in SERVICES if service.has_database]
    return {
        variable: f"must start with {_DATABASE_SCHEME}"
        for variable in variables
        if not environment.get(variable, _DATABASE_SCHEME).startswith(_DATABASE_SCHEME)
    }
