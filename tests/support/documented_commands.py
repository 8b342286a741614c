"""The shell commands that the README and the pages in docs/ tell people to paste."""

import re

from tests.support.infrastructure import CHECKOUT


def commands(marker: str) -> str:
    """The shell block after the comment with this name, on whichever page it is."""
    pages = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md")))
    (found,) = [
        block
        for page in pages
        for block in re.findall(
            rf"<!-- {marker} -->\s*```bash\n(.*?)```", page.read_text(), re.DOTALL
        )
    ]
    return str(found)
