"""supervisord, seen from outside: start it, ask it, end it."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from launcher.layout import START_ORDER, Layout
from launcher.orphans import MARKER
from launcher.problem import Problem
from launcher.programs import Program, write_configuration

_START_SECONDS = 20
_LONGEST_STOP_SECONDS = 180


@dataclass(frozen=True)
class ProgramState:
    """What supervisord says of one program."""

    name: str
    state: str
    description: str
    """`pid N` and more while it runs, otherwise why it does not."""
    pid: int
    started: int
    """When it was last started; another number means another try."""


class Supervisor:
    """The supervisord of one run directory, running or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def process(self) -> psutil.Process | None:
        """The process of supervisord, also while it is stopping; None when there is none."""
        try:
            process = psutil.Process(int((self._layout.run_dir / "supervisord.pid").read_text()))
            # It leaves the file behind if it is killed, and someone else may get its number.
            ours = process.environ().get(MARKER) == str(self._layout.run_dir)
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def states(self) -> list[ProgramState]:
        """Each program's state in start order; none unless supervisord runs and is not stopping."""
        try:
            with self._rpc() as rpc:
                answer = rpc.supervisor.getAllProcessInfo()
        except (OSError, Fault):
            return []
        found = cast(Sequence[Mapping[str, str | int]], answer)
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
        raise Problem(f"{name} is not supervised any more: was the system stopped?")

    def start(
        self, programs: Sequence[Program], environment: Mapping[str, str], *, outlive_us: bool
    ) -> None:
        """Start supervisord with `programs`, none of them running yet.

        Unless it may `outlive_us`, it stops everything when this process is gone, however it went.
        """
        configuration = write_configuration(self._layout, programs)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
        if not outlive_us:
            command = ["setpriv", "--pdeathsig=TERM", *command]
        with (self._layout.run_dir / "supervisord.err").open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=self._layout.run_dir,
                env={**environment, MARKER: str(self._layout.run_dir)},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.states():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self._layout.run_dir / "supervisord.err").read_text().strip()
                raise Problem(
                    f"supervisord does not start: {said.splitlines()[-1] if said else ''}"
                )
            time.sleep(0.05)

    def start_program(self, name: str) -> None:
        """Start program `name`; from now on it is started again whenever it dies."""
        with self._rpc() as rpc:
            rpc.supervisor.startProcess(name, False)  # noqa: FBT003

    def stop(self) -> bool:
        """Stop all programs in reverse start order, then supervisord; return when all are gone.

        False if supervisord was not running.
        """
        process = self.process()
        if process is None:
            return False
        try:
            process.terminate()
            process.wait(timeout=_LONGEST_STOP_SECONDS)
        except psutil.NoSuchProcess:
            return False
        except psutil.TimeoutExpired as error:
            raise Problem(f"supervisord (pid {process.pid}) does not stop") from error
        return True

    def _rpc(self) -> ServerProxy:
        socket = self._layout.sockets / "supervisord.sock"
        transport = SupervisorTransport(None, None, serverurl=f"unix://{socket}")
        return ServerProxy("http://127.0.0.1", transport=transport)
