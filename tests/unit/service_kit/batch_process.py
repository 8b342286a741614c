"""A batch process that records what it receives, and callers that submit to a batcher."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from service_kit.batching import Batcher
from service_kit.context import CallContext, current
from service_kit.errors import InvalidArgument, Unavailable

HOUR = 3600.0
DEADLINE_SECONDS = 20.0


@dataclass
class BatchProcess:
    """Doubles numbers, once `open` is set; records the batches that it receives."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[list[int]] = field(default_factory=list)
    contexts: list[CallContext] = field(default_factory=list)
    failing: frozenset[int] = frozenset()
    faults: Sequence[str] = ()
    """The fault of each batch in turn; those after the last one succeed."""
    met_faults: list[str] = field(default_factory=list)
    turns: int = 0
    in_flight: int = 0
    most_in_flight: int = 0

    async def __call__(self, items: Sequence[int]) -> list[int | InvalidArgument]:
        fault = self.faults[len(self.batches)] if len(self.batches) < len(self.faults) else ""
        self.batches.append(list(items))
        self.met_faults.append(fault)
        self.contexts.append(current())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self.open.wait()
        await turns_of_the_loop(self.turns)
        self.in_flight -= 1
        if fault == "raises":
            raise Unavailable("GONE", "unavailable")
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


async def turns_of_the_loop(times: int = 20) -> None:
    """Let everything run that is ready to run, this many times."""
    for _ in range(times):
        await asyncio.sleep(0)


def submit_all(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]
