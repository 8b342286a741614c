"""The command-line tools, run as people run them."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.infrastructure import CHECKOUT

TOOL_SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """How a tool ended, and what it said."""

    code: int
    said: str
    complained: str

    def line(self, part: str) -> str:
        """The only line with `part` in it."""
        (found,) = (line for line in self.said.splitlines() if part in line)
        return found.rstrip()


async def tool(service: str, *arguments: str, **environment: str) -> Done:
    """Run `python -m <service>.tools ...` with these variables on top of the usual ones."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"{service}.tools", *arguments),
        cwd=CHECKOUT,
        env={**os.environ, "RUN_DIR": "/nowhere", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(TOOL_SECONDS):
        said, complained = await process.communicate()
    return Done(process.returncode or 0, said.decode(), complained.decode())


def url_of(engine: AsyncEngine) -> str:
    """The URL that an engine was made from."""
    return engine.url.render_as_string(hide_password=False)
