"""The watch that runs the audit's looks, and how it reports."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog
from prometheus_client import REGISTRY

from service_kit.consistency import Check, ConsistencyMonitor, Finding
from service_kit.errors import Unavailable

RULE = Check("I3", "watched_in_tests", "all is well")


def off(*subjects: str) -> list[Finding]:
    return [Finding(subject, "wrong") for subject in subjects]


async def watched(*states: Sequence[Finding] | Exception) -> list[tuple[str, object]]:
    """What is logged while the looks give these, one after the other: event and subject(s)."""
    left = list(states)

    async def look() -> Sequence[Finding]:
        state = left.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    watch = ConsistencyMonitor({RULE: look}, seconds=60)
    with structlog.testing.capture_logs() as logs:
        for _ in states:
            await watch.look(RULE)
    return [(each["event"], each.get("subject") or each.get("subjects")) for each in logs]


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"rule": RULE.name})


async def test_a_breach_is_logged_when_it_appears_and_when_it_goes_and_not_in_between() -> None:
    logged = await watched([], off("a"), off("a", "b"), off("b"), [], [])
    assert logged == [
        ("audit: broken", "a"),
        ("audit: broken", "b"),
        ("audit: holds again", ["a"]),
        ("audit: holds again", ["b"]),
    ]


async def test_the_gauge_tells_how_many_there_are_now() -> None:
    await watched(off("a", "b"))
    assert gauge("audit_findings") == 2
    await watched([])
    assert gauge("audit_findings") == 0


async def test_of_a_thousand_breaches_ten_are_logged() -> None:
    assert len(await watched(off(*map(str, range(1000))))) == 10
    assert gauge("audit_findings") == 1000


@pytest.mark.parametrize(
    ("failure", "told"),
    [(Unavailable("GONE", "away"), "audit waits"), (ZeroDivisionError(), "audit failed")],
)
async def test_a_look_that_fails_is_told_once_and_leaves_the_gauges_alone(
    failure: Exception, told: str
) -> None:
    await watched(off("a"))
    looked = gauge("audit_last_look_timestamp_seconds")
    assert await watched(failure, failure) == [(told, None)]
    assert gauge("audit_findings") == 1
    assert gauge("audit_last_look_timestamp_seconds") == looked
    assert [event for event, _ in await watched(failure, [], failure)] == [told, told]


async def test_the_watch_looks_at_once_and_goes_on_after_a_failure() -> None:
    looks = asyncio.Queue[None]()

    async def look() -> Sequence[Finding]:
        looks.put_nowait(None)
        raise Unavailable("GONE", "away")

    running = asyncio.create_task(ConsistencyMonitor({RULE: look}, seconds=0.01).run())
    try:
        async with asyncio.timeout(5):
            for _ in range(3):
                await looks.get()
    finally:
        running.cancel()
