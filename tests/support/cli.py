"""Commands of the services, run as separate processes."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.infrastructure import CHECKOUT

COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    def line(self, part: str) -> str:
        """The only line of standard output that contains `part`."""
        (found,) = (line for line in self.stdout.splitlines() if part in line)
        return found.rstrip()


async def run_command(service: str, *arguments: str, **environment: str) -> CommandResult:
    """Run `python -m <service> ...` with these variables added to the environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", service, *arguments),
        cwd=CHECKOUT,
        env={**os.environ, "RUN_DIR": "/nowhere", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(COMMAND_SECONDS):
        stdout, stderr = await process.communicate()
    return CommandResult(process.returncode or 0, stdout.decode(), stderr.decode())


def url_of(engine: AsyncEngine) -> str:
    """The URL of an engine, with its password."""
    return engine.url.render_as_string(hide_password=False)
