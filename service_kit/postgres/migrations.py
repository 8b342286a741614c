"""Alembic migrations that are safe when several replicas start together."""

import asyncio
import sys
from importlib.resources import files
from pathlib import Path

import stamina
import structlog
from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service_kit.errors import Unavailable
from service_kit.postgres.engine import CONNECT_SECONDS, as_service_error

log = structlog.get_logger(__name__)

_LOCK = 0x65636F6D6D6572  # any constant, the same in every replica
_WAIT_SECONDS = 60.0


async def migrate(url: str, package: str) -> None:
    """Bring the database at `url` to the newest revision of `package`, one replica at a time.

    Waits up to a minute for the database to answer; raises Unavailable after that.
    """
    async for attempt in stamina.retry_context(
        on=Unavailable, attempts=None, timeout=_WAIT_SECONDS, wait_max=2.0
    ):
        with attempt:
            await _upgrade(url, _folder(package))


async def _upgrade(url: str, script_location: Path) -> None:
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": CONNECT_SECONDS})
    try:
        async with asyncio.timeout(_WAIT_SECONDS), engine.begin() as connection:
            # Held until the commit: a replica that waited for it finds nothing left to do.
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            await connection.run_sync(_run, script_location)
    except Exception as error:
        failure = as_service_error(error)
        if failure is None:
            raise
        raise failure from error
    finally:
        await engine.dispose()
    log.info("database is at the newest revision")


def _folder(package: str) -> Path:
    return Path(str(files(package) / "migrations"))


def _run(connection: Connection, script_location: Path) -> None:
    command.upgrade(_config(connection, script_location), "head")


def _config(connection: Connection, script_location: Path) -> Config:
    config = Config(attributes={"connection": connection})
    # ConfigParser interpolates; a path may hold a percent sign.
    config.set_main_option("script_location", str(script_location).replace("%", "%%"))
    return config


async def write_revision(url: str, package: str, message: str) -> None:
    """Write the next revision of `package`: the difference of its tables from the database."""
    script_location = _folder(package)

    def write(connection: Connection) -> None:
        config = _config(connection, script_location)
        number = len(list(script_location.glob("versions/*.py"))) + 1
        command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")

    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(write)
    await engine.dispose()


def run_env(metadata: MetaData) -> None:
    """The body of each service's `migrations/env.py`: runs on the connection of `migrate`."""
    context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "__main__":
    # python -m service_kit.postgres.migrations order_service URL "what changes"
    name, database, what = sys.argv[1:]
    asyncio.run(write_revision(database, name, what))
