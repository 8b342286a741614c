"""The secrets of the first start, given or generated, kept for later starts."""

import secrets
from collections.abc import Mapping

from launcher.environment.files import read_env_file, write_env_file
from launcher.layout import Layout


def read_or_generate(layout: Layout) -> dict[str, str]:
    """The stored secrets, and new ones for those that are not stored."""
    generated = {
        "JWT_SECRET": secrets.token_urlsafe(48),
        "ADMIN_EMAIL": "admin@example.com",
        "ADMIN_PASSWORD": secrets.token_urlsafe(15),
        "POSTGRES_PASSWORD": secrets.token_hex(24),
    }
    return generated | read_env_file(layout.secrets_file)


def store(layout: Layout, environment: Mapping[str, str]) -> None:
    """Store the secrets in `environment` that are not stored yet.

    A stored secret never changes: the first administrator's account keeps its password as well.
    """
    stored = read_env_file(layout.secrets_file)
    wanted = {name: environment[name] for name in read_or_generate(layout)} | stored
    if wanted != stored:
        write_env_file(layout.secrets_file, wanted)
