"""The distribution's packages: the last resort for a RabbitMQ."""

import os
import shutil
import subprocess
from collections.abc import Callable

from launcher.problem import Problem

_APT_SECONDS = 900


def install(package: str, say: Callable[[str], None]) -> None:
    """Install `package` with apt-get, after saying so; a Problem if that is not for us to do."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Problem(
            f"no RabbitMQ: none answers at RABBITMQ_URL, no {package} is installed and no Docker"
            f" engine answers; install {package} (as root: apt-get install {package})"
        )
    say(f"No RabbitMQ and no Docker here: installing the package {package} (about a minute)")
    install_command = ["apt-get", "install", "-y", "--no-install-recommends", package]
    # A fresh machine's package lists may be empty or name versions that are gone.
    done = _run(["apt-get", "update"])
    if done.returncode == 0:
        done = _run(install_command)
    if done.returncode != 0:
        last = (done.stdout.strip() or "no message").splitlines()[-1]
        raise Problem(f"apt-get could not install {package}: {last}")


def enable_management_page() -> None:
    """Ask the package's own running server for its management page, if it lets us."""
    if shutil.which("rabbitmq-plugins"):
        _run(["rabbitmq-plugins", "enable", "rabbitmq_management"])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Problem(f"{' '.join(command)} took more than {_APT_SECONDS} s") from error
