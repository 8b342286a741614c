"""Settings from the environment, with everything that is wrong reported at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _asyncpg_url(url: str) -> str:
    if not url.startswith("postgresql+asyncpg://"):
        raise ValueError("must start with postgresql+asyncpg://")
    return url


DatabaseUrl = Annotated[str, AfterValidator(_asyncpg_url)]
"""A SQLAlchemy URL of a PostgreSQL database, reached through asyncpg."""


def _amqp_url(url: str) -> str:
    if not url.startswith(("amqp://", "amqps://")):
        raise ValueError("must start with amqp:// or amqps://")
    if not urlsplit(url).hostname:
        raise ValueError("must name a host")
    return url


BrokerUrl = Annotated[str, AfterValidator(_amqp_url)]
"""A RabbitMQ URL."""

DEFAULT_BROKER_URL = "amqp://guest:guest@localhost:5672/"

Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port to listen on."""

MetricsPort = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port to serve Prometheus metrics on; 0 switches them off."""


def local_address(port_field: str) -> Callable[[dict[str, Any]], str]:
    """The default address of a dependency: this machine, at the port that another field holds."""
    return lambda fields: f"localhost:{fields.get(port_field, 0)}"


class ServiceSettings(BaseSettings):
    """What every service reads from its environment; services add their own fields."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    bind_host: str = Field("127.0.0.1", min_length=1)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class SettingsError(Exception):
    """Variables are missing or invalid; the message has a line for each."""


S = TypeVar("S", bound=ServiceSettings)


def load(cls: type[S], env_file: Path | None = None) -> S:
    """Read `cls` from the environment; SettingsError names all invalid variables together.

    What the environment does not set may come from `env_file`, with lines of `NAME=value`.
    """
    try:
        return cls(_env_file=env_file)
    except ValidationError as error:
        lines = (
            f"{'_'.join(str(part) for part in each['loc']).upper() or 'SETTINGS'}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
            # Only repeats that another field is invalid, which has its own line.
            if each["type"] != "default_factory_not_called"
        )
        raise SettingsError("\n".join(lines)) from None
