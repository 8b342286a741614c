"""Request coalescing: callers that arrive together share one call.

Wake-ups are the main cost of an asyncio process, so one call for 64 items is far cheaper than 64
calls. The policy: when a batch returns, its callers are expected to return too, so the next batch
waits for that many callers plus the queued ones, but not for long. Sending whatever is queued
would lock 64 callers into cohorts that alternate forever.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from service_kit.errors import Internal, ResourceExhausted, ServiceError, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _PendingItem(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"


class Batcher(Generic[Item, Result]):
    """Collects single items into batches for `process`, and hands each caller its own result.

    `process` takes 1 to `max_items` items and returns, in the same order, a result or a
    ServiceError for each; one failing item fails alone. If it raises, all items of the batch
    fail with that error. A caller that gives up does not stop the batch. At most
    `max_in_flight` batches run at once and at most `max_queue` items wait; beyond that `submit`
    raises ResourceExhausted. After a batch of more than `busy_above` items the next one waits for
    the returning callers, `linger` seconds at most; after a smaller one it does not wait.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Awaitable[Sequence[Result | ServiceError]]],
        *,
        max_items: int = 64,
        max_in_flight: int = 1,
        linger: float = 0.010,
        busy_above: int = 8,
        max_queue: int = 4096,
    ) -> None:
        self._process = process
        self._max_items = max_items
        self._max_in_flight = max_in_flight
        self._linger = linger
        self._busy_above = busy_above
        self._max_queue = max_queue
        self._queue: deque[_PendingItem[Item, Result]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._expected = 0
        self._timer: asyncio.Handle | None = None
        self._closed = False
        # A batch has items of many callers and must not run in the context of one of them.
        self._context: Context = copy_context()

    async def submit(self, item: Item) -> Result:
        """Queue `item` and wait for its result; raises its ServiceError if it failed."""
        if self._closed:
            raise Unavailable("SHUTTING_DOWN", "the service is stopping")
        if len(self._queue) >= self._max_queue:
            raise ResourceExhausted("OVERLOADED", "too many requests are waiting")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_PendingItem(item, future))
        self._start_if_due()
        return await future

    async def close(self) -> None:
        """Accept no more items and finish the accepted ones."""
        self._closed = True
        self._start_if_due()
        while self._running:
            await asyncio.wait(self._running)

    def _start_if_due(self) -> None:
        if not self._queue or len(self._running) >= self._max_in_flight:
            return
        if len(self._queue) >= min(self._expected, self._max_items) or self._closed:
            self._start()

    def _start(self) -> None:
        self._expect(0)
        batch: list[_PendingItem[Item, Result]] = []
        while self._queue and len(batch) < self._max_items:
            pending = self._queue.popleft()
            if not pending.future.done():  # its caller may have given up
                batch.append(pending)
        if not batch:
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(batch), context=self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _expect(self, callers: int) -> None:
        """Delay the next batch until this many callers are queued, or the linger is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._expected = callers
        if callers:
            # The linger starts when the callers have run with their results: resuming sixty of
            # them takes as long as the linger.
            self._timer = asyncio.get_running_loop().call_soon(self._linger_on)

    def _linger_on(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._linger, self._linger_over)

    def _linger_over(self) -> None:
        self._expect(0)
        self._start_if_due()

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._start_if_due()

    async def _run(self, batch: list[_PendingItem[Item, Result]]) -> None:
        items = [pending.item for pending in batch]
        results: Sequence[Result | Exception]
        try:
            results = await self._process(items)
        except asyncio.CancelledError:
            # A call is cancelled when its channel closes; without a result its callers would hang.
            results = [Unavailable("CANCELLED", "the batch was cancelled")] * len(batch)
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            results = [error] * len(batch)
        if len(results) != len(batch):
            results = [Internal("INTERNAL", "a batch lost its results")] * len(batch)
        for pending, result in zip(batch, results, strict=True):
            if pending.future.done():
                continue
            if isinstance(result, Exception):
                pending.future.set_exception(result)
            else:
                pending.future.set_result(result)
        if len(batch) > self._busy_above:
            self._expect(len(batch) + len(self._queue))
