"""What api_gateway reads from its environment."""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from limits import parse
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic import field_validator as validator
from pydantic_settings import NoDecode

from api_gateway.access_tokens import MIN_SECRET_BYTES, load_private_key
from service_kit.settings import Port, ServiceSettings, local_address


def _rate(text: str) -> str:
    parse(text)
    return text


def _split_commas(text: object) -> object:
    return [part.strip() for part in text.split(",") if part.strip()] if type(text) is str else text


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", text):
        raise ValueError(f"{text!r} must be an origin like https://shop.example")
    return text


Rate = Annotated[str, AfterValidator(_rate)]
"""Such as `10/minute` or `100/2 hours`."""
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split_commas)
]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split_commas)
]


class Settings(ServiceSettings):
    """Where the gateway listens, the addresses of its dependencies, and its limits."""

    api_gateway_port: Port = 8080
    user_service_port: Port = 50052
    inventory_service_port: Port = 50055
    order_service_port: Port = 50051
    user_service_addr: str = Field(default_factory=local_address("user_service_port"))
    inventory_service_addr: str = Field(default_factory=local_address("inventory_service_port"))
    order_service_addr: str = Field(default_factory=local_address("order_service_port"))

    jwt_private_key: SecretStr = SecretStr("")
    """An Ed25519 key in PEM: tokens are then signed with EdDSA instead of JWT_SECRET."""
    jwt_secret: SecretStr = Field(SecretStr(""), validate_default=True)

    batch_max_items: int = Field(256, ge=1, le=1000)
    batch_linger_seconds: float = Field(0.010, ge=0, le=1)

    login_rate: Rate = "100/minute"
    """Logins and registrations (each) from one client address; registrations for one e-mail."""
    login_failure_rate: Rate = "10/minute"
    """Wrong passwords for one account from one client address."""
    account_failure_rate: Rate = "100/hour"
    """Wrong passwords for one account from addresses that it has never logged in from."""

    trusted_proxy_hops: int = Field(0, ge=0, le=10)
    """How many trusted proxies append to X-Forwarded-For; with 0 the header is ignored."""
    metrics_networks: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    """Clients that may read /metrics."""
    cors_allowed_origins: Origins = ()

    http_idle_seconds: float = Field(30, gt=0)
    """How long a connection may stay idle, or take to send a request's head."""
    http_body_seconds: float = Field(10, gt=0)
    """How long a client may take to send a request's body."""
    drain_delay_seconds: float = Field(0.2, ge=0, le=5)
    """How long /readyz returns 503 before the gateway stops accepting connections."""

    @validator("jwt_private_key")
    @classmethod
    def _is_ed25519(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value():
            load_private_key(key.get_secret_value())
        return key

    @validator("jwt_secret")
    @classmethod
    def _is_long_enough(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        size = len(secret.get_secret_value().encode())
        key = info.data.get("jwt_private_key")
        unused = key is None or key.get_secret_value()
        if size < MIN_SECRET_BYTES and not unused:
            raise ValueError(f"must be set, with at least {MIN_SECRET_BYTES} bytes")
        return secret
