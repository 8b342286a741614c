"""Whom PostgreSQL runs as: it refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from launcher.problem import Problem

Account = tuple[int, int]
"""A user id and a group id."""

_SYSTEM_USER = "pgserver"
_CAP_DAC_OVERRIDE = 1


def make_folder(folder: Path, account: Account | None) -> None:
    """Make `folder`, closed to everyone but `account`; accept it if it is there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(folder, *account)


def of_server(data: Path) -> Account | None:
    """Whom the server runs as, if not as ourselves: PostgreSQL refuses to run as root.

    The owner of `data`, or an unprivileged system user, made if need be.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    if not _is_user(_SYSTEM_USER):
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--shell", "/usr/sbin/nologin", _SYSTEM_USER]
        subprocess.run(command, capture_output=True, check=False)
    for name in filter(_is_user, (_SYSTEM_USER, "postgres", "nobody")):
        found = pwd.getpwnam(name)
        return found.pw_uid, found.pw_gid
    raise Problem("PostgreSQL does not run as root, and there is no other user: start as one")


def _is_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def prefix(account: Account | None) -> Sequence[str]:
    """What to put before a command so that it runs as `account`.

    The folders above ours may be closed to that user and are not ours to open to everyone, hence
    the capability to pass them anyway.
    """
    if account is None:
        return ()
    if not _may_pass_capability():
        raise Problem(
            "PostgreSQL does not run as root, and this root lacks CAP_DAC_OVERRIDE:"
            " start as an ordinary user, or set the three ..._DATABASE_URL"
        )
    user, group = account
    identity = (f"--reuid={user}", f"--regid={group}", "--clear-groups")
    # The last one has access(2), by which initdb looks for its neighbours, heed the capability.
    capability = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    return ("setpriv", *identity, *capability, "--securebits=+no_setuid_fixup")


def _may_pass_capability() -> bool:
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> _CAP_DAC_OVERRIDE & 1)
