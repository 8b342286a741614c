"""The consistency monitor: which checks it runs, what it logs, and its gauges."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog
from prometheus_client import REGISTRY

from service_kit.consistency import Check, ConsistencyMonitor, Finding
from service_kit.errors import Unavailable

CHECK = Check("I3", "checked_in_tests", "all is well")


def findings(*subjects: str) -> list[Finding]:
    return [Finding(subject, "wrong") for subject in subjects]


async def logged(*results: Sequence[Finding] | Exception) -> list[tuple[str, object]]:
    """What is logged while a check returns or raises these in turn: event and subject(s)."""
    left = list(results)

    async def find_violations() -> Sequence[Finding]:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monitor = ConsistencyMonitor({CHECK: find_violations}, interval_seconds=60)
    with structlog.testing.capture_logs() as logs:
        for _ in results:
            await monitor.run_check(CHECK)
    return [(line["event"], line.get("subject") or line.get("subjects")) for line in logs]


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"check": CHECK.name})


async def test_an_inconsistency_is_logged_when_it_appears_and_when_it_is_resolved() -> None:
    lines = await logged([], findings("a"), findings("a", "b"), findings("b"), [], [])
    assert lines == [
        ("inconsistency found", "a"),
        ("inconsistency found", "b"),
        ("inconsistency resolved", ["a"]),
        ("inconsistency resolved", ["b"]),
    ]


async def test_the_gauge_has_the_current_number_of_findings() -> None:
    await logged(findings("a", "b"))
    assert gauge("consistency_findings") == 2
    await logged([])
    assert gauge("consistency_findings") == 0


async def test_of_a_thousand_findings_ten_are_logged() -> None:
    assert len(await logged(findings(*map(str, range(1000))))) == 10
    assert gauge("consistency_findings") == 1000


@pytest.mark.parametrize(
    ("failure", "event"),
    [
        (Unavailable("GONE", "unavailable"), "consistency check skipped"),
        (ZeroDivisionError(), "consistency check failed"),
    ],
)
async def test_a_check_that_fails_is_logged_once_and_does_not_change_the_gauges(
    failure: Exception, event: str
) -> None:
    await logged(findings("a"))
    last_run = gauge("consistency_last_run_timestamp_seconds")
    assert await logged(failure, failure) == [(event, None)]
    assert gauge("consistency_findings") == 1
    assert gauge("consistency_last_run_timestamp_seconds") == last_run
    assert [name for name, _ in await logged(failure, [], failure)] == [event, event]


async def test_the_monitor_runs_its_checks_at_once_and_continues_after_a_failure() -> None:
    runs = asyncio.Queue[None]()

    async def find_violations() -> Sequence[Finding]:
        runs.put_nowait(None)
        raise Unavailable("GONE", "unavailable")

    monitor = ConsistencyMonitor({CHECK: find_violations}, interval_seconds=0.01)
    running = asyncio.create_task(monitor.run())
    try:
        async with asyncio.timeout(5):
            for _ in range(3):
                await runs.get()
    finally:
        running.cancel()
