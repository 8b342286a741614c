"""A service as a child process of the tests, which restarts it when it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from tests.support.infrastructure import CHECKOUT
from tests.support.waiting import eventually

RESTART_SECONDS = 0.2
STOP_SECONDS = 20.0


class ServiceProcess:
    """A service's process. It is restarted whenever it ends, until it is stopped."""

    def __init__(self, service: str, environment: Mapping[str, str], log_file: Path) -> None:
        self.service = service
        self.environment = dict(environment)
        self.starts = 0
        self.log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self._restarts: asyncio.Task[None] | None = None
        self._wrapper: Sequence[str] = ()
        self._spawning = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The id of the current process."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *wrapper: str) -> None:
        """Start; `wrapper` are Python's arguments for the first process only."""
        self._wrapper = wrapper
        await self._spawn()
        self._restarts = asyncio.create_task(self._restart_forever())

    async def stop(self) -> int:
        """Shut down by SIGTERM; the exit code."""
        await self._stop_restarts()
        with suppress(ProcessLookupError):
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await self._process.wait()

    async def kill_without_restart(self) -> None:
        """Crash; it is not restarted before `start`."""
        await self._stop_restarts()
        self._signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Shut down inside the block."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    def kill(self) -> bool:
        """Crash, and be restarted. False if no process was running."""
        return self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Shut down by SIGTERM, and be restarted."""
        self._signal(signal.SIGTERM)

    @asynccontextmanager
    async def hung(self) -> AsyncIterator[None]:
        """The process does nothing inside the block, and keeps its connections open."""
        self._signal(signal.SIGSTOP)
        hung = self.pid
        try:
            yield
            assert psutil.Process(hung).status() == psutil.STATUS_STOPPED
        finally:
            self._signal(signal.SIGCONT)

    async def wait_for_restart(self, starts: int, within: float = 60.0) -> None:
        """Return once it was started more than `starts` times."""

        async def count() -> int:
            return self.starts

        await eventually(count, lambda found: found > starts, within=within)

    def log(self) -> str:
        """The whole log of all its processes."""
        return self.log_file.read_text(errors="replace")

    async def _stop_restarts(self) -> None:
        # Not while a process is being started, which would then run without an owner.
        async with self._spawning:
            if self._restarts is not None:
                self._restarts.cancel()
                await asyncio.gather(self._restarts, return_exceptions=True)
                self._restarts = None

    async def _restart_forever(self) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            await asyncio.sleep(RESTART_SECONDS)
            async with self._spawning:
                await self._spawn()

    async def _spawn(self) -> None:
        command = self._wrapper or ("-m", self.service)
        self._wrapper = ()
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=CHECKOUT,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1

    def _signal(self, number: signal.Signals) -> bool:
        assert self._process is not None
        running = self._process.returncode is None
        if running:
            os.kill(self._process.pid, number)
        return running
