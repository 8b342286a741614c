"""What the system consists of, and where its files are on this machine."""

import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from launcher.problem import Problem

# A unix socket's path has room for 107 bytes, and supervisord appends its pid to the file's name.
_LONGEST_SOCKET_DIRECTORY = 80


@dataclass(frozen=True)
class Service:
    """One of our services: its Python package, and the variables that place it."""

    name: str
    default_port: int
    has_database: bool = False
    metrics_port: int = 0
    """Where it serves metrics unless that is in use or another is set; 0: it has no such page."""

    @property
    def metrics_variable(self) -> str:
        """The environment variable with the port of its metrics page."""
        return f"{self.name.upper()}_METRICS_PORT"

    @property
    def port_variable(self) -> str:
        """The environment variable with the port it listens on."""
        return f"{self.name.upper()}_PORT"

    @property
    def address_variable(self) -> str:
        """The environment variable that tells the others where it is."""
        return f"{self.name.upper()}_ADDR"

    @property
    def database_variable(self) -> str:
        """The environment variable with its database's URL."""
        return f"{self.name.removesuffix('_service').upper()}_DATABASE_URL"


CONSUMER = Service("consumer_service", 50056)
GATEWAY = Service("api_gateway", 8080)
SERVICES = (
    Service("user_service", 50052, has_database=True),
    Service("inventory_service", 50055, has_database=True, metrics_port=50065),
    Service("producer_service", 50054),
    Service("order_service", 50051, has_database=True, metrics_port=50061),
    CONSUMER,
    GATEWAY,
)
POSTGRES = "postgres"
RABBITMQ = "rabbitmq"
START_ORDER = (POSTGRES, RABBITMQ, *(service.name for service in SERVICES))


@dataclass(frozen=True)
class Layout:
    """The checkout, and the run directory with everything that running leaves behind."""

    checkout: Path
    run_dir: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """The layout that RUN_DIR asks for; `.run` in the checkout unless it is set."""
        checkout = Path(__file__).resolve().parent.parent
        # Resolved, because processes are recognised by it: one folder must have one name.
        return cls(checkout, Path(os.environ.get("RUN_DIR") or checkout / ".run").resolve())

    @property
    def logs(self) -> Path:
        """The folder with one log file per program."""
        return self.run_dir / "logs"

    @property
    def secrets_file(self) -> Path:
        """The secrets of the first start, kept from run to run; a shell can source it."""
        return self.run_dir / "secrets.env"

    @property
    def environment_file(self) -> Path:
        """Where the running system's databases and broker are; a shell can source it."""
        return self.run_dir / "environment.env"

    def create(self) -> None:
        """Make the run directory, private to this user, and the folders in it."""
        try:
            if not self.run_dir.exists():
                self.run_dir.mkdir(parents=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise Problem(f"RUN_DIR {self.run_dir} cannot be used: {error.strerror}") from error
        beside = self.run_dir / "sockets"
        if len(os.fsencode(beside)) > _LONGEST_SOCKET_DIRECTORY and not beside.is_symlink():
            digest = hashlib.sha256(os.fsencode(self.run_dir)).hexdigest()[:12]
            # A link, because `stop` may run with another TMPDIR.
            beside.symlink_to(Path(tempfile.gettempdir()) / f"shop-{os.geteuid()}-{digest}")
        _make_private(self.sockets)

    def log_file(self, name: str) -> Path:
        """The file that gets the output of program `name`."""
        return self.logs / f"{name}.log"

    @property
    def sockets(self) -> Path:
        """A folder for unix sockets, private to this user, with a path short enough for them."""
        beside = self.run_dir / "sockets"
        return beside.readlink() if beside.is_symlink() else beside

    def remove_sockets(self) -> None:
        """Remove the folder of sockets, once nothing listens there."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        (self.run_dir / "sockets").unlink(missing_ok=True)


def _make_private(directory: Path) -> None:
    """Make `directory`, or accept it if it is ours alone: its name can be guessed by others."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not private or found.st_mode & 0o077:
        raise Problem(f"{directory} belongs to someone else: remove it, or set RUN_DIR or TMPDIR")
