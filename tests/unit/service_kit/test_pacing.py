"""When batches start, and how failures are retried."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest
import stamina
import structlog
from hypothesis import given
from hypothesis import strategies as st
from stamina.instrumentation import set_on_retry_hooks

from service_kit.errors import InvalidArgument, ServiceError, Unavailable
from service_kit.pacing import (
    BUSY_BATCH_SIZE,
    MAX_BACKOFF_SECONDS,
    MIN_BATCH_INTERVAL_SECONDS,
    Failures,
    batch_pause,
    log_retry,
    retry_forever,
)

MAX_ITEMS = 250


@given(st.integers(BUSY_BATCH_SIZE + 1, MAX_ITEMS - 1), st.floats(0, MIN_BATCH_INTERVAL_SECONDS))
def test_while_busy_batches_that_are_not_full_start_at_a_fixed_interval(
    size: int, elapsed: float
) -> None:
    pause = batch_pause(size, MAX_ITEMS, elapsed)
    assert elapsed + pause == pytest.approx(MIN_BATCH_INTERVAL_SECONDS)


@given(st.integers(0, BUSY_BATCH_SIZE), st.floats(0, 1))
def test_after_a_small_batch_there_is_no_pause(size: int, elapsed: float) -> None:
    assert batch_pause(size, MAX_ITEMS, elapsed) == 0


@given(st.integers(MAX_ITEMS, 2 * MAX_ITEMS), st.floats(0, 1))
def test_after_a_full_batch_there_is_no_pause(size: int, elapsed: float) -> None:
    assert batch_pause(size, MAX_ITEMS, elapsed) == 0


@given(st.integers(1, MAX_ITEMS), st.floats(MIN_BATCH_INTERVAL_SECONDS, 1e6))
def test_after_a_batch_that_took_longer_than_the_interval_there_is_no_pause(
    size: int, elapsed: float
) -> None:
    assert batch_pause(size, MAX_ITEMS, elapsed) == 0


@given(st.integers(1, BUSY_BATCH_SIZE), st.integers(1, BUSY_BATCH_SIZE))
def test_with_a_limit_below_a_busy_batch_there_is_never_a_pause(size: int, limit: int) -> None:
    assert batch_pause(size, limit, 0.0) == 0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time in this test."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(stamina._core, "_smart_sleep", sleep)
    return taken


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    set_on_retry_hooks([log_retry])
    with structlog.testing.capture_logs() as entries:
        yield entries
    set_on_retry_hooks(None)


class Flaky:
    """Fails with each of the errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def call(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


async def succeed(flaky: Flaky, on: Failures, task: str = "test") -> str:
    async for attempt in retry_forever(task, on):
        with attempt:
            return await flaky.call()
    raise AssertionError


async def test_pauses_double_from_a_tenth_of_a_second_and_are_bounded(pauses: list[float]) -> None:
    flaky = Flaky(*[Unavailable("DOWN", "down")] * 40)
    await succeed(flaky, Unavailable)
    assert len(pauses) == 40
    lower_bounds = [min(0.1 * 2**number, MAX_BACKOFF_SECONDS) for number in range(40)]
    for pause, lower_bound in zip(pauses, lower_bounds, strict=True):
        assert lower_bound <= pause <= min(lower_bound + 0.1, MAX_BACKOFF_SECONDS)
    assert all(earlier <= later for earlier, later in itertools.pairwise(pauses[5:]))


async def test_pauses_have_jitter_so_that_services_do_not_retry_in_step(
    pauses: list[float],
) -> None:
    for _ in range(5):
        flaky = Flaky(OSError())
        await succeed(flaky, OSError)
    assert len(set(pauses)) > 1


async def test_pauses_stay_bounded_after_very_many_failures(pauses: list[float]) -> None:
    flaky = Flaky(*[OSError()] * 2_000)
    await succeed(flaky, OSError)
    assert flaky.calls == 2_001
    assert pauses[-1] == MAX_BACKOFF_SECONDS


async def test_the_first_success_ends_the_attempts(pauses: list[float]) -> None:
    flaky = Flaky(OSError(), TimeoutError())
    assert await succeed(flaky, (OSError, TimeoutError)) == "done"
    assert flaky.calls == 3


async def test_new_attempts_start_with_short_pauses(pauses: list[float]) -> None:
    for _ in range(2):
        flaky = Flaky(*[OSError()] * 6)
        await succeed(flaky, OSError)
    assert pauses[6] < pauses[5]
    assert pauses[6] <= 0.2


async def test_an_error_that_is_not_named_ends_the_attempts(pauses: list[float]) -> None:
    flaky = Flaky(OSError(), LookupError("a bug"), OSError())
    with pytest.raises(LookupError, match="a bug"):
        await succeed(flaky, OSError)
    assert flaky.calls == 2


async def test_a_function_may_decide_which_failures_are_retried(pauses: list[float]) -> None:
    flaky = Flaky(Unavailable("DOWN", "down"), InvalidArgument("WRONG", "wrong"))

    def is_retryable(error: Exception) -> bool:
        return isinstance(error, ServiceError) and error.reason == "DOWN"

    with pytest.raises(InvalidArgument):
        await succeed(flaky, is_retryable)
    assert len(pauses) == 1


async def test_attempts_can_be_cancelled_during_a_pause() -> None:
    flaky = Flaky(*[OSError()] * 100)
    task = asyncio.create_task(succeed(flaky, OSError))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flaky.calls == 1


async def test_cancellation_during_an_attempt_is_not_a_failure(pauses: list[float]) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async for attempt in retry_forever("test", lambda _: True):
            with attempt:
                started.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pauses == []


async def test_each_pause_is_logged_with_task_attempt_seconds_and_error(
    pauses: list[float], logged: list[structlog.typing.EventDict]
) -> None:
    flaky = Flaky(Unavailable("BROKER_UNAVAILABLE", "the broker is unavailable"), OSError("gone"))
    await succeed(flaky, (ServiceError, OSError), task="relay")
    assert logged == [
        {
            "event": "backing off",
            "log_level": "warning",
            "task": "relay",
            "attempt": number,
            "seconds": pytest.approx(pause, abs=0.006),
            "error": error,
        }
        for number, pause, error in zip(
            [1, 2],
            pauses,
            ["BROKER_UNAVAILABLE: the broker is unavailable", "OSError('gone')"],
            strict=True,
        )
    ]
