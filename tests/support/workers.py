"""Which tests run in the same worker of pytest-xdist."""

from xdist.scheduler import LoadScopeScheduling

_SHARED_SYSTEM = ("tests/faults/", "tests/system/")
"""Folders whose tests, also those in folders below, share a running system and so a worker."""
_OWN_SYSTEM = "tests/system/test_benchmark_smoke.py"
"""It starts its own system."""


class GroupScheduler(LoadScopeScheduling):
    """A worker takes a whole folder if its tests share a system, otherwise a file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file == _OWN_SYSTEM:
            return file
        return next((folder for folder in _SHARED_SYSTEM if file.startswith(folder)), file)
