"""Reading the log files of the programs."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.services import START_ORDER

_TAIL_BYTES = 256 * 1024
_POLL_SECONDS = 0.3


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of `path`; none if it does not exist."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-count:]


def find(layout: Layout, name: str | None) -> dict[str, Path]:
    """The log file of `name`, or all that exist, by program in start order."""
    paths = {program: layout.log_file(program) for program in START_ORDER}
    existing = {program: path for program, path in paths.items() if path.exists()}
    if name is None:
        return existing
    if name not in START_ORDER:
        raise LauncherError(f"unknown service {name}; the services are {', '.join(START_ORDER)}")
    if name not in existing:
        raise LauncherError(f"{name} has not logged anything: {paths[name]} does not exist")
    return {name: existing[name]}


def follow(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Every line that is appended to `paths` from now on, through rotations; never ends."""
    positions = {path: (path.stat().st_ino, path.stat().st_size) for path in paths}
    incomplete = dict.fromkeys(paths, b"")
    while True:
        for path in paths:
            added, positions[path] = _read_new(path, *positions[path])
            *lines, incomplete[path] = (incomplete[path] + added).split(b"\n")
            for line in lines:
                yield path, line.decode(errors="replace")
        time.sleep(_POLL_SECONDS)


def _read_new(path: Path, inode: int, offset: int) -> tuple[bytes, tuple[int, int]]:
    """What was appended to `path` after `offset`, and the position after it."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # Rotation renames the file, and another run truncates it.
            start = offset if found.st_ino == inode and found.st_size >= offset else 0
            file.seek(start)
            added = file.read()
            return added, (found.st_ino, start + len(added))
    except FileNotFoundError:
        return b"", (inode, offset)
