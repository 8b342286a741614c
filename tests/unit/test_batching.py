"""The promises of the batcher, on a real event loop.

Where a test must not wait, the linger is an hour and the test fails by its deadline if it is
waited for; where it has to wait, the linger is a hundredth of a second.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_kit.batching import Batcher
from service_kit.context import CallContext, bound, current
from service_kit.errors import (
    Internal,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)

HOUR = 3600.0
SOON = 0.01
DEADLINE = 20.0


@dataclass
class Work:
    """Doubles numbers, once `open` is set; notes what it was given and how."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[list[int]] = field(default_factory=list)
    contexts: list[CallContext] = field(default_factory=list)
    failing: frozenset[int] = frozenset()
    faults: Sequence[str] = ()
    """What befalls the batches, one after the other; those after the last one are fine."""
    fates: list[str] = field(default_factory=list)
    turns: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def __call__(self, items: Sequence[int]) -> list[int | InvalidArgument]:
        fault = self.faults[len(self.batches)] if len(self.batches) < len(self.faults) else ""
        self.batches.append(list(items))
        self.fates.append(fault)
        self.contexts.append(current())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.open.wait()
        await turn_of_the_loop(self.turns)
        self.at_once -= 1
        if fault == "raises":
            raise Unavailable("AWAY", "away")
        if fault == "is cancelled":
            raise asyncio.CancelledError
        results: list[int | InvalidArgument] = [
            InvalidArgument("ODD", str(item)) if item in self.failing else 2 * item
            for item in items
        ]
        return results[1:] if fault == "loses a result" else results

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@pytest.fixture
def work() -> Work:
    return Work()


async def turn_of_the_loop(times: int = 20) -> None:
    """Let everything run that is ready to run."""
    for _ in range(times):
        await asyncio.sleep(0)


def callers(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


@asynccontextmanager
async def lingering(work: Work, count: int = 9, **limits: int) -> AsyncIterator[Batcher[int, int]]:
    """A batcher that for an hour waits for the `count` callers of its last batch."""
    batcher = Batcher(work, linger=HOUR, **limits)
    first, *others = callers(batcher, range(count + 1))
    await turn_of_the_loop()
    assert work.sizes == [1]
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(first, *others)
    assert work.sizes == [1, count]
    work.batches.clear()
    yield batcher
    async with asyncio.timeout(DEADLINE):
        await batcher.close()


async def test_each_caller_gets_its_own_result(work: Work) -> None:
    work.open.set()
    batcher = Batcher(work, linger=SOON)
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*callers(batcher, range(200))) == [2 * n for n in range(200)]
    assert [item for batch in work.batches for item in batch] == list(range(200))


async def test_callers_that_arrive_while_a_batch_runs_travel_together(work: Work) -> None:
    batcher = Batcher(work, linger=HOUR)
    waiting = callers(batcher, range(8))
    await turn_of_the_loop()
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting)
    assert work.batches == [[0], [1, 2, 3, 4, 5, 6, 7]]


async def test_an_item_that_fails_fails_alone(work: Work) -> None:
    work.open.set()
    work.failing = frozenset({3})
    batcher = Batcher(work, linger=HOUR)
    async with asyncio.timeout(DEADLINE):
        results = await asyncio.gather(*callers(batcher, range(6)), return_exceptions=True)
    failure = results.pop(3)
    assert isinstance(failure, InvalidArgument)
    assert failure.message == "3"
    assert results == [0, 2, 4, 8, 10]


async def test_a_batch_that_fails_fails_its_callers_and_no_others(work: Work) -> None:
    gate = asyncio.Event()

    async def fail_at_first(items: Sequence[int]) -> list[int | InvalidArgument]:
        if 0 in items:
            await gate.wait()
            raise Unavailable("AWAY", "away")
        return await work(items)

    work.open.set()
    batcher = Batcher(fail_at_first, linger=HOUR)
    waiting = callers(batcher, range(3))
    await turn_of_the_loop()
    gate.set()
    async with asyncio.timeout(DEADLINE):
        failure, *results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(failure, Unavailable)
    assert results == [2, 4]


@pytest.mark.parametrize("answer", [[], [1, 2]])
async def test_a_batch_that_loses_results_fails_rather_than_mixes_them_up(
    answer: list[int],
) -> None:
    async def lose(_: Sequence[int]) -> list[int]:
        return answer

    with pytest.raises(Internal):
        await Batcher[int, int](lose).submit(7)


async def test_callers_of_a_batch_that_was_cancelled_are_not_left_waiting() -> None:
    # As a gRPC call is when its channel is closed.
    async def be_cancelled(_: Sequence[int]) -> list[int]:
        raise asyncio.CancelledError

    (caller,) = callers(Batcher[int, int](be_cancelled), [7])
    await asyncio.wait({caller}, timeout=DEADLINE)
    assert isinstance(caller.exception(), Unavailable)


async def test_callers_that_give_up_do_not_stop_their_batch(work: Work) -> None:
    work.turns = 20
    batcher = Batcher(work, linger=HOUR)
    first, second, *others = callers(batcher, range(5))
    await turn_of_the_loop()
    first.cancel()  # alone in a batch under way
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        while len(work.batches) < 2:
            await turn_of_the_loop(1)
        second.cancel()  # in a batch under way with others
        assert await asyncio.gather(*others) == [4, 6, 8]
    assert work.batches == [[0], [1, 2, 3, 4]]
    assert first.cancelled()
    assert second.cancelled()


async def test_what_nobody_waits_for_any_more_is_not_begun(work: Work) -> None:
    batcher = Batcher(work, linger=HOUR)
    running, *queued = callers(batcher, [1, 2, 3])
    await turn_of_the_loop()
    queued[0].cancel()
    await turn_of_the_loop()
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(running, queued[1])
        assert work.batches == [[1], [3]]
        running = callers(batcher, [4])[0]
        await running
    assert work.batches == [[1], [3], [4]]


async def test_more_than_may_wait_are_refused(work: Work) -> None:
    batcher = Batcher(work, linger=HOUR, max_queue=3)
    taken = callers(batcher, range(4))
    await turn_of_the_loop()
    with pytest.raises(ResourceExhausted) as refused:
        await batcher.submit(4)
    assert refused.value.reason == "OVERLOADED"
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*taken) == [0, 2, 4, 6]
        assert await batcher.submit(4) == 8


async def test_a_batch_is_never_larger_than_allowed(work: Work) -> None:
    batcher = Batcher(work, linger=SOON, max_items=4)
    waiting = callers(batcher, range(10))
    await turn_of_the_loop()
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting)
    assert work.sizes == [1, 4, 4, 1]


async def test_no_more_batches_run_at_once_than_allowed(work: Work) -> None:
    batcher = Batcher(work, linger=HOUR, max_items=2, max_in_flight=3)
    waiting = callers(batcher, range(12))
    await turn_of_the_loop()
    assert work.at_once == 3
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting)
    assert work.most_at_once == 3


async def test_after_a_small_batch_nobody_waits(work: Work) -> None:
    work.open.set()
    batcher = Batcher(work, linger=HOUR, busy_above=8)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*callers(batcher, range(9)))
        assert work.sizes == [1, 8]
        assert await batcher.submit(1) == 2


async def test_after_a_big_batch_the_next_one_waits_for_the_callers_that_left(work: Work) -> None:
    async with lingering(work, count=9) as batcher:
        waiting = callers(batcher, range(8))
        await turn_of_the_loop()
        assert work.batches == []
        waiting += callers(batcher, [8])
        async with asyncio.timeout(DEADLINE):
            assert await asyncio.gather(*waiting) == [2 * n for n in range(9)]
        assert work.sizes == [9]


async def test_those_queued_are_expected_beside_the_callers_that_left(work: Work) -> None:
    async with lingering(work, count=9) as batcher:
        work.open.clear()
        waiting = callers(batcher, range(12))
        await turn_of_the_loop()
        assert work.sizes == [9]
        work.open.set()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*waiting[:9])
        waiting += callers(batcher, range(8))
        await turn_of_the_loop()
        assert work.sizes == [9]
        waiting += callers(batcher, [8])
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*waiting)
        assert work.sizes == [9, 12]


async def test_a_full_batch_waits_for_nobody(work: Work) -> None:
    batcher = Batcher(work, linger=HOUR, max_items=9)
    waiting = callers(batcher, range(15))
    await turn_of_the_loop()
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting[:10])
        await turn_of_the_loop()
        # Nine are expected back, five are queued: four more make nine and need not wait.
        assert work.sizes == [1, 9]
        await asyncio.gather(*callers(batcher, range(4)))
    assert work.sizes == [1, 9, 9]


async def test_callers_that_do_not_come_back_are_waited_for_only_so_long(work: Work) -> None:
    work.open.set()
    batcher = Batcher(work, linger=SOON)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*callers(batcher, range(21)))
        assert work.sizes == [1, 20]
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await batcher.submit(1) == 2
    assert loop.time() - started >= SOON / 2


async def test_callers_that_trickle_in_for_ever_do_not_hold_the_batch_for_ever(work: Work) -> None:
    work.open.set()
    loop = asyncio.get_running_loop()
    batcher = Batcher(work, linger=0.1, max_items=5000)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*callers(batcher, range(4001)))
        work.batches.clear()
        started, trickle = loop.time(), list[asyncio.Task[int]]()
        while not work.batches:
            trickle += callers(batcher, [1])
            await asyncio.sleep(SOON / 4)
        # One linger, and what a busy machine adds; for all to come back takes ten seconds.
        assert loop.time() - started < 4
        await batcher.close()
        await asyncio.gather(*trickle)


async def test_closing_finishes_what_was_taken_and_takes_no_more(work: Work) -> None:
    batcher = Batcher(work, linger=HOUR, max_items=2)
    taken = callers(batcher, range(6))
    await turn_of_the_loop()
    closing = asyncio.create_task(batcher.close())
    await turn_of_the_loop()
    assert not closing.done()
    with pytest.raises(Unavailable) as refused:
        await batcher.submit(6)
    assert refused.value.reason == "SHUTTING_DOWN"
    work.open.set()
    async with asyncio.timeout(DEADLINE):
        await closing
    assert [task.result() for task in taken] == [0, 2, 4, 6, 8, 10]


async def test_closing_does_not_wait_for_callers_that_may_come_back(work: Work) -> None:
    async with lingering(work) as batcher:
        taken = callers(batcher, [7])
        await turn_of_the_loop()
        assert work.batches == []
        async with asyncio.timeout(DEADLINE):
            await batcher.close()
        assert [task.result() for task in taken] == [14]


async def test_closing_an_idle_batcher_returns_at_once(work: Work) -> None:
    async with asyncio.timeout(DEADLINE):
        await Batcher(work).close()
    assert work.batches == []


async def test_a_batch_runs_in_the_context_of_none_of_its_callers(work: Work) -> None:
    work.open.set()
    batcher = Batcher(work)
    with bound(CallContext("request-of-one")):
        await batcher.submit(1)
    assert work.contexts == [CallContext()]


FAULTS = {"raises": "AWAY", "is cancelled": "CANCELLED", "loses a result": "INTERNAL"}
"""What may befall a batch, and the reason that its callers are told."""

MOST_TURNS = 4
SUBMIT = st.tuples(st.just("submit"), st.integers(1, 9))
STEPS = st.one_of(
    SUBMIT,
    SUBMIT,
    st.tuples(st.just("turns of the loop"), st.integers(0, MOST_TURNS)),
    st.tuples(st.sampled_from(["hold", "go on"]), st.just(0)),
    st.tuples(st.just("rest"), st.just(0)),
    st.tuples(st.just("give up"), st.integers(0, 30)),
    st.tuples(st.just("close"), st.just(0)),
)


@dataclass
class Story:
    """What callers do to a batcher, step by step; items are numbered as they are submitted."""

    work: Work
    batcher: Batcher[int, int]
    max_queue: int
    busy_above: int
    tasks: list[asyncio.Task[int]] = field(default_factory=list)
    gave_up: set[int] = field(default_factory=set)
    refused: int = 0
    closing: asyncio.Task[None] | None = None
    taken: int = 0
    """How many had been submitted when it was closed."""

    async def step(self, what: str, number: int) -> None:
        if what == "submit":
            first = len(self.tasks)
            self.tasks += [asyncio.create_task(self._ask(first + n)) for n in range(number)]
            if not self.work.open.is_set():
                await self.rest()
        elif what == "give up" and (left := [n for n, t in enumerate(self.tasks) if not t.done()]):
            item = left[number % len(left)]
            self.gave_up.add(item)
            self.tasks[item].cancel()
        elif what == "close" and self.closing is None:
            self.closing = asyncio.create_task(self.batcher.close())
            self.taken = len(self.tasks)
        elif what == "hold":
            self.work.open.clear()
        elif what == "go on":
            self.work.open.set()
        elif what == "turns of the loop":
            await turn_of_the_loop(number)
        elif what == "rest":
            await self.rest()

    async def rest(self) -> None:
        """Let it go on until nothing happens any more."""
        batches = -1
        while batches < len(self.work.batches):
            batches = len(self.work.batches)
            await turn_of_the_loop(2 * MOST_TURNS)
        waiting = self.waiting()
        assert len(waiting) <= self.max_queue
        if not self.work.at_once and max(self.work.sizes, default=0) <= self.busy_above:
            assert not waiting

    def waiting(self) -> set[int]:
        begun = {item for batch in self.work.batches for item in batch}
        return {item for item, task in enumerate(self.tasks) if not task.done()} - begun

    async def _ask(self, item: int) -> int:
        try:
            return await self.batcher.submit(item)
        except ResourceExhausted:
            assert item - self.refused - sum(self.work.sizes) >= self.max_queue
            self.refused += 1
            raise

    async def end(self) -> None:
        self.work.open.set()
        await self.step("close", 0)
        assert self.closing is not None
        await self.closing
        # Whoever was taken has been answered, and needs but a turn to hear of it.
        await turn_of_the_loop(2)
        assert all(task.done() for task in self.tasks)

    def told(self, item: int) -> int | str:
        error = self.tasks[item].exception()
        return error.reason if isinstance(error, ServiceError) else self.tasks[item].result()

    def due(self, item: int) -> int | str:
        """What the caller of an item has to be told."""
        for batch, fault in zip(self.work.batches, self.work.fates, strict=True):
            if item in batch and fault:
                return FAULTS[fault]
            if item in batch:
                return "ODD" if item in self.work.failing else 2 * item
        return "OVERLOADED" if item < self.taken else "SHUTTING_DOWN"


@settings(max_examples=200)
@given(
    steps=st.lists(STEPS, min_size=3, max_size=30),
    faults=st.lists(st.sampled_from(["", *FAULTS]), max_size=6),
    failing=st.frozensets(st.integers(0, 60)),
    max_items=st.integers(1, 12),
    max_in_flight=st.integers(1, 3),
    max_queue=st.integers(1, 12),
    busy_above=st.integers(0, 6),
    turns=st.integers(0, MOST_TURNS),
)
async def test_whatever_happens_every_caller_is_told_what_is_due_and_none_is_served_twice(
    *,
    steps: list[tuple[str, int]],
    faults: list[str],
    failing: frozenset[int],
    max_items: int,
    max_in_flight: int,
    max_queue: int,
    busy_above: int,
    turns: int,
) -> None:
    work = Work(failing=failing, turns=turns, faults=faults)
    work.open.set()
    batcher = Batcher(
        work,
        max_items=max_items,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
        busy_above=busy_above,
        linger=HOUR,
    )
    story = Story(work, batcher, max_queue, busy_above)
    async with asyncio.timeout(DEADLINE):
        for what, number in steps:
            await story.step(what, number)
        await story.end()
    gave_up = {item for item in story.gave_up if story.tasks[item].cancelled()}
    others = set(range(len(story.tasks))) - gave_up
    assert {item: story.told(item) for item in others} == {item: story.due(item) for item in others}
    served = [item for batch in work.batches for item in batch]
    assert served == sorted(set(served))
    assert max(work.sizes, default=0) <= max_items
    assert work.most_at_once <= max_in_flight
