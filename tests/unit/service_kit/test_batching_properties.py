"""The batcher under random callers, faults and limits."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from service_kit.batching import Batcher
from service_kit.errors import ResourceExhausted, ServiceError
from tests.unit.service_kit.batch_process import (
    DEADLINE_SECONDS,
    HOUR,
    BatchProcess,
    turns_of_the_loop,
)

FAULTS = {"raises": "GONE", "is cancelled": "CANCELLED", "loses a result": "INTERNAL"}
"""Faults of a batch, and the reason of the error that its callers receive."""

MOST_TURNS = 4
SUBMIT = st.tuples(st.just("submit"), st.integers(1, 9))
STEPS = st.one_of(
    SUBMIT,
    SUBMIT,
    st.tuples(st.just("turns of the loop"), st.integers(0, MOST_TURNS)),
    st.tuples(st.sampled_from(["hold", "resume"]), st.just(0)),
    st.tuples(st.just("settle"), st.just(0)),
    st.tuples(st.just("give up"), st.integers(0, 30)),
    st.tuples(st.just("close"), st.just(0)),
)


@dataclass
class Simulation:
    """What callers do to a batcher, step by step; items are numbered as they are submitted."""

    process: BatchProcess
    batcher: Batcher[int, int]
    max_queue: int
    busy_above: int
    tasks: list[asyncio.Task[int]] = field(default_factory=list)
    gave_up: set[int] = field(default_factory=set)
    refused: int = 0
    closing: asyncio.Task[None] | None = None
    accepted: int = 0
    """How many items were submitted before it was closed."""

    async def step(self, what: str, number: int) -> None:
        if what == "submit":
            first = len(self.tasks)
            self.tasks += [asyncio.create_task(self._submit(first + n)) for n in range(number)]
            if not self.process.open.is_set():
                await self.settle()
        elif what == "give up" and (left := [n for n, t in enumerate(self.tasks) if not t.done()]):
            item = left[number % len(left)]
            self.gave_up.add(item)
            self.tasks[item].cancel()
        elif what == "close" and self.closing is None:
            self.closing = asyncio.create_task(self.batcher.close())
            self.accepted = len(self.tasks)
        elif what == "hold":
            self.process.open.clear()
        elif what == "resume":
            self.process.open.set()
        elif what == "turns of the loop":
            await turns_of_the_loop(number)
        elif what == "settle":
            await self.settle()

    async def settle(self) -> None:
        """Let it run until nothing happens any more."""
        batches = -1
        while batches < len(self.process.batches):
            batches = len(self.process.batches)
            await turns_of_the_loop(2 * MOST_TURNS)
        waiting = self.waiting()
        assert len(waiting) <= self.max_queue
        if not self.process.in_flight and max(self.process.sizes, default=0) <= self.busy_above:
            assert not waiting

    def waiting(self) -> set[int]:
        started = {item for batch in self.process.batches for item in batch}
        return {item for item, task in enumerate(self.tasks) if not task.done()} - started

    async def _submit(self, item: int) -> int:
        try:
            return await self.batcher.submit(item)
        except ResourceExhausted:
            assert item - self.refused - sum(self.process.sizes) >= self.max_queue
            self.refused += 1
            raise

    async def end(self) -> None:
        self.process.open.set()
        await self.step("close", 0)
        assert self.closing is not None
        await self.closing
        # Every accepted caller has its result, and needs a turn of the loop to receive it.
        await turns_of_the_loop(2)
        assert all(task.done() for task in self.tasks)

    def received(self, item: int) -> int | str:
        error = self.tasks[item].exception()
        return error.reason if isinstance(error, ServiceError) else self.tasks[item].result()

    def expected(self, item: int) -> int | str:
        """The result that the caller of an item must receive, or its error's reason."""
        for batch, fault in zip(self.process.batches, self.process.met_faults, strict=True):
            if item in batch and fault:
                return FAULTS[fault]
            if item in batch:
                return "ODD" if item in self.process.failing else 2 * item
        return "OVERLOADED" if item < self.accepted else "SHUTTING_DOWN"


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
async def test_every_caller_receives_its_own_result_and_no_item_is_processed_twice(
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
    process = BatchProcess(failing=failing, turns=turns, faults=faults)
    process.open.set()
    batcher = Batcher(
        process,
        max_items=max_items,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
        busy_above=busy_above,
        linger=HOUR,
    )
    simulation = Simulation(process, batcher, max_queue, busy_above)
    async with asyncio.timeout(DEADLINE_SECONDS):
        for what, number in steps:
            await simulation.step(what, number)
        await simulation.end()
    gave_up = {item for item in simulation.gave_up if simulation.tasks[item].cancelled()}
    others = set(range(len(simulation.tasks))) - gave_up
    assert {item: simulation.received(item) for item in others} == {
        item: simulation.expected(item) for item in others
    }
    processed = [item for batch in process.batches for item in batch]
    assert processed == sorted(set(processed))
    assert max(process.sizes, default=0) <= max_items
    assert process.most_in_flight <= max_in_flight
