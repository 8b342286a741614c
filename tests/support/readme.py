"""The commands that the README tells its readers to paste."""

import re

from tests.support.infrastructure import CHECKOUT


def commands(marker: str) -> str:
    """The shell block behind the comment with this name."""
    readme = (CHECKOUT / "README.md").read_text()
    (found,) = re.findall(rf"<!-- {marker} -->\s*```bash\n(.*?)```", readme, re.DOTALL)
    return str(found)
