"""How the tests are shared out when several workers of pytest-xdist run them."""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

_TOGETHER = ("tests/faults", "tests/system")
"""Folders whose tests share a running shop, and so a worker."""
_ALONE = "tests/system/test_benchmark_smoke.py"
"""It has a system of its own."""


class Groups(LoadScopeScheduling):
    """A worker gets a whole folder if its tests share a shop, otherwise a file, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        folder = str(PurePosixPath(file).parent)
        return folder if folder in _TOGETHER and file != _ALONE else file
