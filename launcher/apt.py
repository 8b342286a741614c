"""Packages of the distribution, installed by one process at a time: `python -m launcher.apt NAME`.

Imports only the standard library, because the scripts use it before `.venv` exists.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.errors import LauncherError

TURN_SECONDS = 600.0
"""How long an installation waits for another one by this module."""
LOCK_SECONDS = 300.0
"""How long apt-get waits for other programs that use the package database."""
COMMAND_SECONDS = 900.0
PAUSE_SECONDS = 0.5

_LOCK_ERRORS = ("Could not get lock", "Unable to lock", "Unable to acquire")


def can_install() -> bool:
    """Whether this process can install packages: it is root, on a distribution with apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str, notify: Callable[[str], None]) -> None:
    """Install `package` unless it is installed; LauncherError with apt's last line if that fails.

    Waits for installations by other processes, and checks again after them.
    """
    with _locked(fcntl.LOCK_EX, notify):
        if _is_installed(package):
            return
        # The package lists of a fresh machine may be empty, or name versions that are gone.
        _apt_get(package, "update")
        _apt_get(package, "install", "-y", "--no-install-recommends", package)


def wait_for_others(notify: Callable[[str], None]) -> None:
    """Return once no other process installs a package through this module."""
    with _locked(fcntl.LOCK_SH, notify):
        pass


@contextmanager
def _locked(kind: int, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of this module inside the block; says through `notify` if it has to wait.

    After TURN_SECONDS it goes on without the lock: apt has locks of its own.
    """
    program = shutil.which("apt-get")
    if program is None:
        yield
        return
    # The program itself carries the lock: each user can open it, and it is the same file for all
    # checkouts. Child processes, which may be servers that stay, do not inherit the lock.
    with Path(program).open("rb") as file:
        if not _try_lock(file.fileno(), kind):
            notify("Waiting for another process that installs a package")
            deadline = time.monotonic() + TURN_SECONDS
            while not _try_lock(file.fileno(), kind) and time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
        yield


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    status = _run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package])
    return status.returncode == 0 and status.stdout == "installed"


def _apt_get(package: str, *arguments: str) -> None:
    """Run apt-get, again while another program holds the lock of the package lists."""
    # This option covers the lock of dpkg, but not that of the lists.
    command = ["apt-get", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS:.0f}", *arguments]
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        completed = _run(command)
        if completed.returncode == 0:
            return
        locked = any(message in completed.stdout for message in _LOCK_ERRORS)
        if not locked or time.monotonic() > deadline:
            lines = completed.stdout.strip().splitlines() or ["no message"]
            raise LauncherError(f"apt-get could not install {package}: {lines[-1]}")
        time.sleep(PAUSE_SECONDS)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LauncherError(f"{' '.join(command)} took over {COMMAND_SECONDS:.0f} s") from error


if __name__ == "__main__":
    try:
        install(sys.argv[1], print)
    except LauncherError as error:
        sys.exit(f"error: {error}")
