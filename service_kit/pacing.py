"""Pauses between batches while busy, and back-off while something fails."""

from collections.abc import AsyncIterator, Callable

import stamina
import structlog
from stamina.instrumentation import RetryDetails

from service_kit.errors import ServiceError

log = structlog.get_logger(__name__)

MIN_BATCH_INTERVAL_SECONDS = 0.050
"""While busy, batches that are not full start no faster than this: fuller ones cost less."""
BUSY_BATCH_SIZE = 8
"""A batch of more items than this shows that the system is busy."""
MAX_BACKOFF_SECONDS = 2.0

Failures = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


def batch_pause(size: int, max_items: int, elapsed_seconds: float) -> float:
    """Seconds to pause after a batch of `size` items that started `elapsed_seconds` ago.

    0 after a full batch, because more items are waiting, and after a small one, so that an idle
    system adds no delay.
    """
    if BUSY_BATCH_SIZE < size < max_items:
        return max(0.0, MIN_BATCH_INTERVAL_SECONDS - elapsed_seconds)
    return 0.0


def retry_forever(task: str, on: Failures) -> AsyncIterator[stamina.Attempt]:
    """Attempts until one raises none of the failures `on`; another error ends them.

    The pause between attempts doubles from 0.1 s to MAX_BACKOFF_SECONDS, with jitter; each is
    logged with `task`. Use as `async for attempt in retry_forever(…): with attempt: …`.
    """
    # The retry library asks a function about cancellation too, which is never to be retried.
    failures = (
        on
        if isinstance(on, type | tuple)
        else lambda error: isinstance(error, Exception) and on(error)
    )
    attempts = stamina.retry_context(
        failures,
        attempts=None,
        timeout=None,
        wait_initial=0.1,
        wait_max=MAX_BACKOFF_SECONDS,
        wait_jitter=0.1,
    )
    return attempts.with_name(task, (), {})


def log_retry(details: RetryDetails) -> None:
    """Log a failed attempt as a warning; every service installs it as the retry library's hook."""
    log.warning(
        "backing off",
        task=details.name,
        attempt=details.retry_num,
        seconds=round(details.wait_for, 2),
        error=_describe(details.caused_by),
    )


def _describe(error: Exception) -> str:
    return f"{error.reason}: {error.message}" if isinstance(error, ServiceError) else repr(error)
