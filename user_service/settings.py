"""What user_service reads from its environment."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from service_kit.errors import InvalidArgument
from service_kit.settings import DatabaseUrl, Port, ServiceSettings
from user_service.domain import valid_email
from user_service.passwords import check_password

T = TypeVar("T")


class Settings(ServiceSettings):
    """Where the service listens, its database, its first administrator, the cost of a hash.

    An empty variable counts as unset.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True)

    user_service_port: Port = 50052
    user_database_url: DatabaseUrl

    admin_email: str | None = None
    admin_password: SecretStr | None = Field(None, validate_default=True)

    refresh_token_days: int = Field(30, ge=1, le=365)

    # One of the equivalents of https://cheatsheetseries.owasp.org (Password Storage): about 50 ms
    # and 46 MiB. Lanes would only compete with the other workers for the same cores.
    password_hash_time_cost: int = Field(1, ge=1, le=100)
    password_hash_parallelism: int = Field(1, ge=1, le=64)
    password_hash_memory_cost: int = Field(47_104, le=4_194_304, description="KiB")
    password_hash_workers: int = Field(2, ge=1, le=64)
    password_hash_queue: int = Field(128, ge=0, le=10_000)

    @property
    def refresh_token_lifetime(self) -> timedelta:
        """How long a refresh token can be exchanged."""
        return timedelta(days=self.refresh_token_days)

    @field_validator("admin_email")
    @classmethod
    def _email_is_valid(cls, email: str | None) -> str | None:
        return None if email is None else _checked(valid_email, email)

    @field_validator("admin_password")
    @classmethod
    def _password_is_valid(
        cls, password: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        # An invalid e-mail is not in `data`, and is reported itself.
        if "admin_email" in info.data and (info.data["admin_email"] is None) != (password is None):
            raise ValueError("ADMIN_EMAIL and ADMIN_PASSWORD must be set together")
        if password is not None:
            _checked(check_password, password.get_secret_value())
        return password

    @field_validator("password_hash_memory_cost")
    @classmethod
    def _memory_suffices(cls, memory_cost: int, info: ValidationInfo) -> int:
        least = 8 * int(info.data.get("password_hash_parallelism", 1))
        if memory_cost < least:
            raise ValueError(f"must be at least 8 KiB per lane: {least}")
        return memory_cost


def _checked(rule: Callable[[str], T], value: str) -> T:
    try:
        return rule(value)
    except InvalidArgument as error:
        raise ValueError(error.message) from error
