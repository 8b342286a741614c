"""supervisord as a client sees it: start it, query it, stop it."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.services import START_ORDER
from launcher.supervisor.processes import RUN_DIR_MARK
from launcher.supervisor.programs import Program, write_configuration

_START_SECONDS = 20
_PAUSE_SECONDS = 0.05
_MAX_STOP_SECONDS = 180


@dataclass(frozen=True)
class ProgramState:
    """The state of a program, as supervisord reports it."""

    name: str
    state: str
    description: str
    """`pid N` and its uptime while it runs, otherwise the reason why it does not."""
    pid: int
    started: int
    """Unix time of its last start: it changes with every attempt."""


class Supervisor:
    """The supervisord of a run directory, running or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def process(self) -> psutil.Process | None:
        """The process of supervisord, also while it stops; None if it does not run."""
        try:
            process = psutil.Process(int((self._layout.run_dir / "supervisord.pid").read_text()))
            # If it was killed, the file remains, and another process may have its pid.
            marked = process.environ().get(RUN_DIR_MARK) == str(self._layout.run_dir)
            return process if marked and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def states(self) -> list[ProgramState]:
        """Each program's state in start order; none if supervisord is stopping or not running."""
        try:
            with self._rpc() as rpc:
                reply = rpc.supervisor.getAllProcessInfo()
        except (OSError, Fault):
            return []
        found = cast(Sequence[Mapping[str, str | int]], reply)
        states = [
            ProgramState(
                name=str(entry["name"]),
                state=str(entry["statename"]),
                description=str(entry["description"] or f"pid {entry['pid']}"),
                pid=int(entry["pid"]),
                started=int(entry["start"]),
            )
            for entry in found
        ]
        return sorted(states, key=lambda state: START_ORDER.index(state.name))

    def state(self, name: str) -> ProgramState:
        """The state of program `name`."""
        for state in self.states():
            if state.name == name:
                return state
        raise LauncherError(f"{name} is no longer supervised: was the system stopped?")

    def start(
        self, programs: Sequence[Program], environment: Mapping[str, str], *, detach: bool
    ) -> None:
        """Start supervisord with `programs`, none of which runs yet.

        Unless `detach`, it stops everything when this process ends, for whatever reason.
        """
        configuration = write_configuration(self._layout, programs)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
        if not detach:
            command = ["setpriv", "--pdeathsig=TERM", *command]
        with (self._layout.run_dir / "supervisord.err").open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=self._layout.run_dir,
                env={**environment, RUN_DIR_MARK: str(self._layout.run_dir)},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.states():
            if process.poll() is not None or time.monotonic() > deadline:
                output = (self._layout.run_dir / "supervisord.err").read_text().strip()
                last = output.splitlines()[-1] if output else "no message"
                raise LauncherError(f"supervisord does not start: {last}")
            time.sleep(_PAUSE_SECONDS)

    def start_program(self, name: str) -> None:
        """Start program `name`; supervisord restarts it whenever it ends."""
        with self._rpc() as rpc:
            rpc.supervisor.startProcess(name, False)  # noqa: FBT003

    def stop(self) -> bool:
        """Stop all programs in reverse start order, then supervisord; return when all have ended.

        False if supervisord was not running.
        """
        process = self.process()
        if process is None:
            return False
        try:
            process.terminate()
            process.wait(timeout=_MAX_STOP_SECONDS)
        except psutil.NoSuchProcess:
            return False
        except psutil.TimeoutExpired as error:
            raise LauncherError(f"supervisord (pid {process.pid}) does not stop") from error
        return True

    def _rpc(self) -> ServerProxy:
        socket = self._layout.sockets / "supervisord.sock"
        transport = SupervisorTransport(None, None, serverurl=f"unix://{socket}")
        return ServerProxy("http://127.0.0.1", transport=transport)
