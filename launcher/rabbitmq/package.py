"""RabbitMQ from the distribution's package: the last resort."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress

from launcher import apt
from launcher.errors import LauncherError

_PACKAGE = "rabbitmq-server"
_TIMEOUT_SECONDS = 60


def install(notify: Callable[[str], None]) -> None:
    """Install the package, after saying so through `notify`; LauncherError if that is impossible.

    Returns without a change if another process has just installed it.
    """
    if not apt.can_install():
        raise LauncherError(
            f"no RabbitMQ: RABBITMQ_URL is unavailable, {_PACKAGE} is not installed and no Docker"
            f" engine is available; install {_PACKAGE} (as root: apt-get install {_PACKAGE})"
        )
    notify(f"No RabbitMQ and no Docker: installing the package {_PACKAGE} (about a minute)")
    apt.install(_PACKAGE, notify)


def enable_management_page() -> None:
    """Try to enable the management page of the package's running server; the page is optional."""
    if shutil.which("rabbitmq-plugins") is None:
        return
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["rabbitmq-plugins", "enable", "rabbitmq_management"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
