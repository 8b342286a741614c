"""The promises of the batcher, on a real event loop.

Where a test must not wait, the linger is an hour and the test fails at its deadline if the batcher
waits; where it has to wait, the linger is a hundredth of a second.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from service_kit.batching import Batcher
from service_kit.context import CallContext, bound
from service_kit.errors import Internal, InvalidArgument, ResourceExhausted, Unavailable
from tests.unit.service_kit.batch_process import (
    DEADLINE_SECONDS,
    HOUR,
    BatchProcess,
    submit_all,
    turns_of_the_loop,
)

SOON = 0.01


@pytest.fixture
def process() -> BatchProcess:
    return BatchProcess()


@asynccontextmanager
async def lingering(
    process: BatchProcess, count: int = 9, **limits: int
) -> AsyncIterator[Batcher[int, int]]:
    """A batcher that waits an hour for the `count` callers of its last batch."""
    batcher = Batcher(process, linger=HOUR, **limits)
    first, *others = submit_all(batcher, range(count + 1))
    await turns_of_the_loop()
    assert process.sizes == [1]
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(first, *others)
    assert process.sizes == [1, count]
    process.batches.clear()
    yield batcher
    async with asyncio.timeout(DEADLINE_SECONDS):
        await batcher.close()


async def test_each_caller_receives_its_own_result(process: BatchProcess) -> None:
    process.open.set()
    batcher = Batcher(process, linger=SOON)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await asyncio.gather(*submit_all(batcher, range(200))) == [2 * n for n in range(200)]
    assert [item for batch in process.batches for item in batch] == list(range(200))


async def test_callers_that_arrive_while_a_batch_runs_share_the_next_one(
    process: BatchProcess,
) -> None:
    batcher = Batcher(process, linger=HOUR)
    waiting = submit_all(batcher, range(8))
    await turns_of_the_loop()
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*waiting)
    assert process.batches == [[0], [1, 2, 3, 4, 5, 6, 7]]


async def test_an_item_that_fails_fails_alone(process: BatchProcess) -> None:
    process.open.set()
    process.failing = frozenset({3})
    batcher = Batcher(process, linger=HOUR)
    async with asyncio.timeout(DEADLINE_SECONDS):
        results = await asyncio.gather(*submit_all(batcher, range(6)), return_exceptions=True)
    failure = results.pop(3)
    assert isinstance(failure, InvalidArgument)
    assert failure.message == "3"
    assert results == [0, 2, 4, 8, 10]


async def test_a_batch_that_fails_fails_its_callers_and_no_others(process: BatchProcess) -> None:
    gate = asyncio.Event()

    async def fail_at_first(items: Sequence[int]) -> list[int | InvalidArgument]:
        if 0 in items:
            await gate.wait()
            raise Unavailable("GONE", "unavailable")
        return await process(items)

    process.open.set()
    batcher = Batcher(fail_at_first, linger=HOUR)
    waiting = submit_all(batcher, range(3))
    await turns_of_the_loop()
    gate.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        failure, *results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(failure, Unavailable)
    assert results == [2, 4]


@pytest.mark.parametrize("results", [[], [1, 2]])
async def test_a_batch_with_the_wrong_number_of_results_fails_all_its_callers(
    results: list[int],
) -> None:
    async def lose(_: Sequence[int]) -> list[int]:
        return results

    with pytest.raises(Internal):
        await Batcher[int, int](lose).submit(7)


async def test_callers_of_a_cancelled_batch_receive_an_error() -> None:
    # As a gRPC call is when its channel is closed.
    async def be_cancelled(_: Sequence[int]) -> list[int]:
        raise asyncio.CancelledError

    (caller,) = submit_all(Batcher[int, int](be_cancelled), [7])
    await asyncio.wait({caller}, timeout=DEADLINE_SECONDS)
    assert isinstance(caller.exception(), Unavailable)


async def test_callers_that_give_up_do_not_stop_their_batch(process: BatchProcess) -> None:
    process.turns = 20
    batcher = Batcher(process, linger=HOUR)
    first, second, *others = submit_all(batcher, range(5))
    await turns_of_the_loop()
    first.cancel()  # alone in a running batch
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(process.batches) < 2:
            await turns_of_the_loop(1)
        second.cancel()  # in a running batch with others
        assert await asyncio.gather(*others) == [4, 6, 8]
    assert process.batches == [[0], [1, 2, 3, 4]]
    assert first.cancelled()
    assert second.cancelled()


async def test_an_item_whose_caller_gave_up_is_not_processed(process: BatchProcess) -> None:
    batcher = Batcher(process, linger=HOUR)
    running, *queued = submit_all(batcher, [1, 2, 3])
    await turns_of_the_loop()
    queued[0].cancel()
    await turns_of_the_loop()
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(running, queued[1])
        assert process.batches == [[1], [3]]
        running = submit_all(batcher, [4])[0]
        await running
    assert process.batches == [[1], [3], [4]]


async def test_items_beyond_the_queue_limit_are_refused(process: BatchProcess) -> None:
    batcher = Batcher(process, linger=HOUR, max_queue=3)
    accepted = submit_all(batcher, range(4))
    await turns_of_the_loop()
    with pytest.raises(ResourceExhausted) as error:
        await batcher.submit(4)
    assert error.value.reason == "OVERLOADED"
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await asyncio.gather(*accepted) == [0, 2, 4, 6]
        assert await batcher.submit(4) == 8


async def test_a_batch_is_never_larger_than_its_limit(process: BatchProcess) -> None:
    batcher = Batcher(process, linger=SOON, max_items=4)
    waiting = submit_all(batcher, range(10))
    await turns_of_the_loop()
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*waiting)
    assert process.sizes == [1, 4, 4, 1]


async def test_no_more_batches_run_at_once_than_their_limit(process: BatchProcess) -> None:
    batcher = Batcher(process, linger=HOUR, max_items=2, max_in_flight=3)
    waiting = submit_all(batcher, range(12))
    await turns_of_the_loop()
    assert process.in_flight == 3
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*waiting)
    assert process.most_in_flight == 3


async def test_after_a_small_batch_the_next_one_starts_at_once(process: BatchProcess) -> None:
    process.open.set()
    batcher = Batcher(process, linger=HOUR, busy_above=8)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*submit_all(batcher, range(9)))
        assert process.sizes == [1, 8]
        assert await batcher.submit(1) == 2


async def test_after_a_large_batch_the_next_one_waits_for_the_returning_callers(
    process: BatchProcess,
) -> None:
    async with lingering(process, count=9) as batcher:
        waiting = submit_all(batcher, range(8))
        await turns_of_the_loop()
        assert process.batches == []
        waiting += submit_all(batcher, [8])
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await asyncio.gather(*waiting) == [2 * n for n in range(9)]
        assert process.sizes == [9]


async def test_queued_callers_are_expected_alongside_the_returning_ones(
    process: BatchProcess,
) -> None:
    async with lingering(process, count=9) as batcher:
        process.open.clear()
        waiting = submit_all(batcher, range(12))
        await turns_of_the_loop()
        assert process.sizes == [9]
        process.open.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*waiting[:9])
        waiting += submit_all(batcher, range(8))
        await turns_of_the_loop()
        assert process.sizes == [9]
        waiting += submit_all(batcher, [8])
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*waiting)
        assert process.sizes == [9, 12]


async def test_a_full_batch_does_not_wait(process: BatchProcess) -> None:
    batcher = Batcher(process, linger=HOUR, max_items=9)
    waiting = submit_all(batcher, range(15))
    await turns_of_the_loop()
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*waiting[:10])
        await turns_of_the_loop()
        # Nine are expected to return, five are queued: four more make a full batch.
        assert process.sizes == [1, 9]
        await asyncio.gather(*submit_all(batcher, range(4)))
    assert process.sizes == [1, 9, 9]


async def test_callers_that_do_not_return_are_waited_for_one_linger(process: BatchProcess) -> None:
    process.open.set()
    batcher = Batcher(process, linger=SOON)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*submit_all(batcher, range(21)))
        assert process.sizes == [1, 20]
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await batcher.submit(1) == 2
    assert loop.time() - started >= SOON / 2


async def test_a_steady_trickle_of_callers_does_not_delay_the_batch_forever(
    process: BatchProcess,
) -> None:
    process.open.set()
    loop = asyncio.get_running_loop()
    batcher = Batcher(process, linger=0.1, max_items=5000)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*submit_all(batcher, range(4001)))
        process.batches.clear()
        started, trickle = loop.time(), list[asyncio.Task[int]]()
        while not process.batches:
            trickle += submit_all(batcher, [1])
            await asyncio.sleep(SOON / 4)
        # One linger, and what a busy machine adds; all callers return within ten seconds.
        assert loop.time() - started < 4
        await batcher.close()
        await asyncio.gather(*trickle)


async def test_closing_finishes_accepted_items_and_accepts_no_more(process: BatchProcess) -> None:
    batcher = Batcher(process, linger=HOUR, max_items=2)
    accepted = submit_all(batcher, range(6))
    await turns_of_the_loop()
    closing = asyncio.create_task(batcher.close())
    await turns_of_the_loop()
    assert not closing.done()
    with pytest.raises(Unavailable) as error:
        await batcher.submit(6)
    assert error.value.reason == "SHUTTING_DOWN"
    process.open.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await closing
    assert [task.result() for task in accepted] == [0, 2, 4, 6, 8, 10]


async def test_closing_does_not_wait_for_returning_callers(process: BatchProcess) -> None:
    async with lingering(process) as batcher:
        accepted = submit_all(batcher, [7])
        await turns_of_the_loop()
        assert process.batches == []
        async with asyncio.timeout(DEADLINE_SECONDS):
            await batcher.close()
        assert [task.result() for task in accepted] == [14]


async def test_closing_an_idle_batcher_returns_at_once(process: BatchProcess) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await Batcher(process).close()
    assert process.batches == []


async def test_a_batch_does_not_run_in_the_context_of_a_caller(process: BatchProcess) -> None:
    process.open.set()
    batcher = Batcher(process)
    with bound(CallContext("request-of-one")):
        await batcher.submit(1)
    assert process.contexts == [CallContext()]
