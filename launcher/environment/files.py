"""Files that only this user can read, and the format of environment files in them."""

import shlex
from collections.abc import Mapping
from pathlib import Path


def read_env_file(path: Path) -> dict[str, str]:
    """The variables in a file that `write_env_file` wrote; none if the file does not exist."""
    if not path.exists():
        return {}
    words = shlex.split(path.read_text(), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def write_env_file(path: Path, variables: Mapping[str, str]) -> None:
    """Write `variables` readable by this user only, in a form that a shell can source."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_private(path, "".join(lines))


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, readable by this user only."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600, exist_ok=False)
    partial.write_text(text)
    partial.replace(path)
