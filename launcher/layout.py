"""Where the files of the running system are."""

import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LauncherError

# A unix socket's path has room for 107 bytes, and supervisord appends its pid to the file's name.
_MAX_SOCKET_FOLDER_BYTES = 80


@dataclass(frozen=True)
class Layout:
    """The checkout, and the run directory that holds every file of the running system."""

    checkout: Path
    run_dir: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """The layout for RUN_DIR; `.run` in the checkout unless it is set."""
        checkout = Path(__file__).resolve().parent.parent
        # Resolved, because processes are recognised by this path: it must have one spelling.
        return cls(checkout, Path(os.environ.get("RUN_DIR") or checkout / ".run").resolve())

    @property
    def logs(self) -> Path:
        """The folder with a log file per program."""
        return self.run_dir / "logs"

    @property
    def secrets_file(self) -> Path:
        """The secrets of the first start, reused by later ones; a shell can source it."""
        return self.run_dir / "secrets.env"

    @property
    def environment_file(self) -> Path:
        """The addresses of databases, broker and services; a shell can source it."""
        return self.run_dir / "environment.env"

    @property
    def sockets(self) -> Path:
        """A folder for unix sockets, private to this user, with a path short enough for them."""
        path = self._sockets_path
        return path.readlink() if path.is_symlink() else path

    @property
    def _sockets_path(self) -> Path:
        return self.run_dir / "sockets"

    def log_file(self, name: str) -> Path:
        """The file with the output of program `name`."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Create the run directory, private to this user, and the folders in it."""
        try:
            if not self.run_dir.exists():
                self.run_dir.mkdir(parents=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            message = f"RUN_DIR {self.run_dir} cannot be used: {error.strerror}"
            raise LauncherError(message) from error
        path = self._sockets_path
        if len(os.fsencode(path)) > _MAX_SOCKET_FOLDER_BYTES and not path.is_symlink():
            digest = hashlib.sha256(os.fsencode(self.run_dir)).hexdigest()[:12]
            # A link, because `stop` may run with another TMPDIR.
            path.symlink_to(Path(tempfile.gettempdir()) / f"shop-{os.geteuid()}-{digest}")
        _create_private(self.sockets)

    def remove_sockets(self) -> None:
        """Remove the folder of sockets, once no program listens there."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        self._sockets_path.unlink(missing_ok=True)


def _create_private(folder: Path) -> None:
    """Create `folder`, or accept it if only this user has access: others can guess its name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not private or found.st_mode & 0o077:
        raise LauncherError(
            f"{folder} is not private to this user: remove it, or set RUN_DIR or TMPDIR"
        )
