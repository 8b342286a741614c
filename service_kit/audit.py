"""Rules that shall hold in the data, and a watch that tells when one does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

_FINDINGS = Gauge("audit_findings", "Breaches that the running audit sees now", ("rule",))
_LOOKED = Gauge(
    "audit_last_look_timestamp_seconds", "When the running audit last looked", ("rule",)
)
_SECONDS = Gauge("audit_last_look_seconds", "How long that took", ("rule",))

_LINES = 10
"""So many findings of a rule are logged one by one at a time; the log line counts the others."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What shall hold: the invariant it belongs to, a name for metrics, and a sentence."""

    invariant: str
    name: str
    promise: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach: what of (`product 7`), and how."""

    subject: str
    detail: str


Look = Callable[[], Awaitable[Sequence[Finding]]]
"""Finds the breaches of a rule that there are now."""


class Watch:
    """Looks for breaches every so many seconds, and reports each as it appears and goes.

    The gauge `audit_findings` tells how many there are now. It lies still while the database or a
    neighbour is away, and `audit_last_look_timestamp_seconds` with it; the log says so once.
    """

    def __init__(self, looks: Mapping[Rule, Look], seconds: float) -> None:
        self._looks = looks
        self._seconds = seconds
        self._known: dict[Rule, set[str]] = {rule: set() for rule in looks}
        self._blind: set[Rule] = set()

    async def run(self) -> None:
        """Look for ever; at once, and then every so many seconds."""
        while True:
            for rule in self._looks:
                await self.look(rule)
            await asyncio.sleep(self._seconds)

    async def look(self, rule: Rule) -> None:
        """Look once, and report."""
        started = time.perf_counter()
        try:
            found = await self._looks[rule]()
        except ServiceError as error:
            if rule not in self._blind:
                log.warning("audit waits", rule=rule.name, reason=error.reason, error=error.message)
            self._blind.add(rule)
            return
        except Exception:  # what watches a service must not stop it
            if rule not in self._blind:
                log.exception("audit failed", rule=rule.name)
            self._blind.add(rule)
            return
        self._blind.discard(rule)
        _SECONDS.labels(rule.name).set(time.perf_counter() - started)
        _LOOKED.labels(rule.name).set_to_current_time()
        _FINDINGS.labels(rule.name).set(len(found))
        self._report(rule, found)

    def _report(self, rule: Rule, found: Sequence[Finding]) -> None:
        known = self._known[rule]
        subjects = {finding.subject for finding in found}
        new = [finding for finding in found if finding.subject not in known]
        gone = known - subjects
        for finding in new[:_LINES]:
            log.error(
                "audit: broken",
                invariant=rule.invariant,
                rule=rule.name,
                subject=finding.subject,
                detail=finding.detail,
                new=len(new),
            )
        if gone:
            log.info("audit: holds again", rule=rule.name, subjects=sorted(gone)[:_LINES])
        self._known[rule] = subjects
