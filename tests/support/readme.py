"""The shell commands in the README."""

import re

from tests.support.infrastructure import CHECKOUT


def commands(marker: str) -> str:
    """The shell block after the comment with this name."""
    readme = (CHECKOUT / "README.md").read_text()
    (found,) = re.findall(rf"<!-- {marker} -->\s*```bash\n(.*?)```", readme, re.DOTALL)
    return str(found)
