"""Reading the programs' log files."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.layout import START_ORDER, Layout
from launcher.problem import Problem

_TAIL_BYTES = 256 * 1024
_POLL_SECONDS = 0.3


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of `path`; none if it is not there."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-count:]


def files(layout: Layout, name: str | None) -> dict[str, Path]:
    """The log files to show: that of `name`, or all there are, by program in start order."""
    found = {program: layout.log_file(program) for program in START_ORDER}
    there = {program: path for program, path in found.items() if path.exists()}
    if name is None:
        return there
    if name not in START_ORDER:
        raise Problem(f"there is no service {name}; there are {', '.join(START_ORDER)}")
    if name not in there:
        raise Problem(f"{name} has not logged anything: {found[name]} does not exist")
    return {name: there[name]}


def follow(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Every line that is added to `paths` from now on, for ever, through rotations."""
    places = {path: (path.stat().st_ino, path.stat().st_size) for path in paths}
    partial = dict.fromkeys(paths, b"")
    while True:
        for path in paths:
            added, places[path] = _added(path, *places[path])
            *lines, partial[path] = (partial[path] + added).split(b"\n")
            for line in lines:
                yield path, line.decode(errors="replace")
        time.sleep(_POLL_SECONDS)


def _added(path: Path, inode: int, offset: int) -> tuple[bytes, tuple[int, int]]:
    """What was written to `path` since `offset`, and where to go on."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # Rotation renames the file away, or another run empties it.
            start = offset if found.st_ino == inode and found.st_size >= offset else 0
            file.seek(start)
            added = file.read()
            return added, (found.st_ino, start + len(added))
    except FileNotFoundError:
        return b"", (inode, offset)
