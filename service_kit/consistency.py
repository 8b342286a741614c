"""Checks that the data is consistent, and a monitor that reports when a check fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

_FINDINGS = Gauge("consistency_findings", "Violations that the check finds now", ("check",))
_LAST_RUN = Gauge(
    "consistency_last_run_timestamp_seconds", "When the check last completed", ("check",)
)
_DURATION = Gauge("consistency_last_run_seconds", "How long the check took", ("check",))

_MAX_LINES = 10
"""Findings of one check that are logged one by one at a time; the log line counts the others."""


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold: the invariant it belongs to, a name for metrics, and a sentence."""

    invariant: str
    name: str
    promise: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation: of what (`product 7`), and how."""

    subject: str
    detail: str


FindViolations = Callable[[], Awaitable[Sequence[Finding]]]
"""Returns the violations of a check that exist now."""


class ConsistencyMonitor:
    """Runs checks at a fixed interval, and reports each violation as it appears and disappears.

    The gauge `consistency_findings` has their number. While the database or a dependency is
    unavailable, it keeps its value, and so does `consistency_last_run_timestamp_seconds`; the log
    reports it once.
    """

    def __init__(self, checks: Mapping[Check, FindViolations], interval_seconds: float) -> None:
        self._checks = checks
        self._interval_seconds = interval_seconds
        self._reported: dict[Check, set[str]] = {check: set() for check in checks}
        self._failing: set[Check] = set()

    async def run(self) -> None:
        """Run every check, at once and then after each interval, until cancelled."""
        while True:
            for check in self._checks:
                await self.run_check(check)
            await asyncio.sleep(self._interval_seconds)

    async def run_check(self, check: Check) -> None:
        """Run one check, and report."""
        started = time.perf_counter()
        try:
            findings = await self._checks[check]()
        except ServiceError as error:
            if check not in self._failing:
                log.warning(
                    "consistency check skipped",
                    check=check.name,
                    reason=error.reason,
                    error=error.message,
                )
            self._failing.add(check)
            return
        except Exception:  # the monitor must not stop its service
            if check not in self._failing:
                log.exception("consistency check failed", check=check.name)
            self._failing.add(check)
            return
        self._failing.discard(check)
        _DURATION.labels(check.name).set(time.perf_counter() - started)
        _LAST_RUN.labels(check.name).set_to_current_time()
        _FINDINGS.labels(check.name).set(len(findings))
        self._report(check, findings)

    def _report(self, check: Check, findings: Sequence[Finding]) -> None:
        reported = self._reported[check]
        subjects = {finding.subject for finding in findings}
        new = [finding for finding in findings if finding.subject not in reported]
        resolved = reported - subjects
        for finding in new[:_MAX_LINES]:
            log.error(
                "inconsistency found",
                invariant=check.invariant,
                check=check.name,
                subject=finding.subject,
                detail=finding.detail,
                new=len(new),
            )
        if resolved:
            log.info(
                "inconsistency resolved", check=check.name, subjects=sorted(resolved)[:_MAX_LINES]
            )
        self._reported[check] = subjects
