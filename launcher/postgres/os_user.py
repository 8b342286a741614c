"""The operating-system user that PostgreSQL runs as, because it refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LauncherError

_SYSTEM_USER = "pgserver"
_CAP_DAC_OVERRIDE = 1


@dataclass(frozen=True)
class OsUser:
    """A user and its group, by number."""

    uid: int
    gid: int


def server_user(data: Path) -> OsUser | None:
    """The user for a server with its files in `data`; None: the current one, which is not root.

    The owner of `data`, or else an unprivileged system user, created if necessary.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return OsUser(data.stat().st_uid, data.stat().st_gid)
    if not _exists(_SYSTEM_USER):
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--shell", "/usr/sbin/nologin", _SYSTEM_USER]
        subprocess.run(command, capture_output=True, check=False)
    for name in filter(_exists, (_SYSTEM_USER, "postgres", "nobody")):
        found = pwd.getpwnam(name)
        return OsUser(found.pw_uid, found.pw_gid)
    raise LauncherError(
        "PostgreSQL does not run as root, and there is no other user: start as an ordinary user"
    )


def create_folder(folder: Path, user: OsUser | None) -> None:
    """Create `folder` unless it exists; only `user` has access."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if user:
        os.chown(folder, user.uid, user.gid)


def command_prefix(user: OsUser | None) -> Sequence[str]:
    """What to put before a command so that it runs as `user`.

    The folders above the run directory may be closed to that user, and must stay closed: hence a
    capability to enter them.
    """
    if user is None:
        return ()
    if not _can_pass_capability():
        raise LauncherError(
            "PostgreSQL does not run as root, and this root lacks CAP_DAC_OVERRIDE:"
            " start as an ordinary user, or set the three ..._DATABASE_URL"
        )
    identity = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
    # no_setuid_fixup: initdb finds its programs through access(2), which otherwise ignores the
    # capability.
    capability = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    return ("setpriv", *identity, *capability, "--securebits=+no_setuid_fixup")


def _exists(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def _can_pass_capability() -> bool:
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> _CAP_DAC_OVERRIDE & 1)
