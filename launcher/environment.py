"""The environment that every service is started with: the user's own, gaps filled in."""

import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher import endpoint, ports
from launcher.layout import CONSUMER, SERVICES, Layout, Service

DEFAULT_RABBITMQ_URL = "amqp://guest:guest@localhost:5672/"


def read_env_file(path: Path) -> dict[str, str]:
    """The variables in a file that `write_env_file` wrote; none if there is no such file."""
    if not path.exists():
        return {}
    words = shlex.split(path.read_text(), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def write_env_file(path: Path, variables: Mapping[str, str]) -> None:
    """Write `variables` where only this user can read them, in a form that a shell can source."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_private(path, "".join(lines))


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` as a whole or not at all, readable by this user only."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600, exist_ok=False)
    partial.write_text(text)
    partial.replace(path)


def complete(layout: Layout, given: Mapping[str, str]) -> dict[str, str]:
    """`given` with every gap filled: secrets, ports, addresses; for what is wrong see `complaints`.

    The databases' URLs are not filled in here: whoever starts a database does that.
    """
    environment = _secrets(layout) | {name: value for name, value in given.items() if value}
    environment["RUN_DIR"] = str(layout.run_dir)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("BIND_HOST", "127.0.0.1")
    environment.setdefault("RABBITMQ_URL", DEFAULT_RABBITMQ_URL)
    _fill_ports(environment)
    host = ports.local_address(environment["BIND_HOST"])
    for service in SERVICES:
        address = f"{_bracketed(host)}:{environment[service.port_variable]}"
        environment.setdefault(service.address_variable, address)
    return environment


def port_variables(services: Sequence[Service], environment: Mapping[str, str]) -> list[str]:
    """The variables of all ports that `services` listen on; a metrics port of 0 asks for none."""
    pages = [service.metrics_variable for service in services if service.metrics_port]
    return [
        *(service.port_variable for service in services),
        *(variable for variable in pages if environment[variable] != "0"),
    ]


def complaints(environment: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with the variables of a completed environment that we read ourselves."""
    return _wrong_ports(environment) | _wrong_urls(environment) | endpoint.complaints(environment)


def keep_secrets(layout: Layout, environment: Mapping[str, str]) -> None:
    """Keep what the first start uses, given or generated, for later ones to which none is given.

    The first administrator's password is kept for good: the account keeps it as well.
    """
    kept = read_env_file(layout.secrets_file)
    wanted = {name: environment[name] for name in _secrets(layout)} | kept
    if wanted != kept:
        write_env_file(layout.secrets_file, wanted)


def own_address(environment: Mapping[str, str], port_variable: str) -> str:
    """`host:port` at which this machine reaches what we listen with on `port_variable`."""
    host = ports.local_address(environment["BIND_HOST"])
    return f"{_bracketed(host)}:{environment[port_variable]}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _secrets(layout: Layout) -> dict[str, str]:
    """The secrets that were kept, and new ones for those that were not."""
    generated = {
        "JWT_SECRET": secrets.token_urlsafe(48),
        "ADMIN_EMAIL": "admin@example.com",
        "ADMIN_PASSWORD": secrets.token_urlsafe(15),
        "POSTGRES_PASSWORD": secrets.token_hex(24),
    }
    return generated | read_env_file(layout.secrets_file)


def _fill_ports(environment: dict[str, str]) -> None:
    for service in SERVICES:
        port = service.default_port
        # Nobody has to know the consumer's port, so a taken one is no reason to stop.
        if service is CONSUMER:
            port = _or_another(port, environment["BIND_HOST"])
        environment.setdefault(service.port_variable, str(port))
        if service.metrics_port:
            port = _or_another(service.metrics_port, environment["BIND_HOST"])
            environment.setdefault(service.metrics_variable, str(port))


def _or_another(port: int, host: str) -> int:
    return port if ports.is_free(port, host) else ports.free_port()


def _wrong_ports(environment: Mapping[str, str]) -> dict[str, str]:
    wrong, seen = dict[str, str](), dict[str, str]()
    for variable in port_variables(SERVICES, environment):
        value = environment[variable]
        if not ports.is_port(value):
            wrong[variable] = f"{value!r} is not a port"
        elif value in seen:
            wrong[variable] = f"{value} is {seen[value]} as well"
        seen.setdefault(value, variable)
    return wrong


def _wrong_urls(environment: Mapping[str, str]) -> dict[str, str]:
    start = "postgresql+asyncpg://"
    variables = [service.database_variable for service in SERVICES if service.has_database]
    return {
        variable: f"must start with {start}"
        for variable in variables
        if not environment.get(variable, start).startswith(start)
    }
