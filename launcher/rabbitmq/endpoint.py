"""Where RabbitMQ is, or where it is to be started."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from launcher import ports

MANAGEMENT_VARIABLE = "RABBITMQ_MANAGEMENT_PORT"


@dataclass(frozen=True)
class Endpoint:
    """The parts of an AMQP URL, and the port of the management page."""

    url: str
    host: str
    port: int
    user: str
    password: str
    vhost: str
    management_port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Endpoint":
        """The endpoint of RABBITMQ_URL and RABBITMQ_MANAGEMENT_PORT, which must be valid."""
        url = urlsplit(environment["RABBITMQ_URL"])
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
        management = environment.get(MANAGEMENT_VARIABLE) or str(port + 10000)
        return cls(
            url=environment["RABBITMQ_URL"],
            host=url.hostname or "localhost",
            port=port,
            user=unquote(url.username or "guest"),
            password=unquote(url.password or "guest"),
            vhost=unquote(url.path[1:]) or "/",
            # With a high AMQP port the default may be no port number.
            management_port=(
                int(management) if ports.is_port_number(management) else ports.free_port()
            ),
        )

    @property
    def management_url(self) -> str:
        """The URL of the management page, if the broker has one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.management_port}/"

    def is_local(self) -> bool:
        """Whether the host is this machine's loopback interface."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def invalid_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with RABBITMQ_URL and RABBITMQ_MANAGEMENT_PORT."""
    invalid = dict[str, str]()
    try:
        url = urlsplit(environment["RABBITMQ_URL"])
        if url.scheme not in ("amqp", "amqps"):
            invalid["RABBITMQ_URL"] = "must start with amqp:// or amqps://"
        elif url.port == 0:
            invalid["RABBITMQ_URL"] = "0 is not a port number"
    except ValueError as error:
        invalid["RABBITMQ_URL"] = str(error)
    management = environment.get(MANAGEMENT_VARIABLE)
    if management and not ports.is_port_number(management):
        invalid[MANAGEMENT_VARIABLE] = f"{management!r} is not a port number"
    return invalid
