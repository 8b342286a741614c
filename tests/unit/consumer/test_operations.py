"""Handling events: batches, contexts, retries, and the event that makes a batch fail."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import cast

import pytest
import stamina
import structlog
from stamina.instrumentation import set_on_retry_hooks

from consumer_service.clients import InventoryClient, OrderClient
from consumer_service.domain import EventResult, OrderEvent, Settlement, StockUpdateResult
from consumer_service.operations import MAX_INTERNAL_ERRORS, handle_events
from proto.stock import Shortage, StockUpdateKind, StockUpdateOutcome
from service_kit.context import CallContext, current
from service_kit.errors import (
    Aborted,
    Code,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    error_from_code,
)
from service_kit.pacing import log_retry

APPLIED = StockUpdateResult(StockUpdateOutcome.APPLIED)
DEDUCT, RESTORE = StockUpdateKind.DEDUCT, StockUpdateKind.RESTORE

Fail = Callable[[Sequence[OrderEvent]], ServiceError | None]


class Dependencies:
    """Inventory and orders in one, which record the calls and the contexts they have."""

    def __init__(self, fail: Fail = lambda _: None) -> None:
        self._fail = fail
        self.results: dict[uuid.UUID, StockUpdateResult] = {}
        """Other results than APPLIED."""
        self.unknown_orders: set[uuid.UUID] = set()
        self.updates: list[list[OrderEvent]] = []
        self.settlements: list[list[Settlement]] = []
        self.request_ids: list[str] = []

    async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockUpdateResult]:
        self.updates.append(list(events))
        self.request_ids.append(current().request_id)
        if error := self._fail(events):
            raise error
        return [self.results.get(event.order_id, APPLIED) for event in events]

    async def settle_orders(self, settlements: Sequence[Settlement]) -> list[str | None]:
        self.settlements.append(list(settlements))
        self.request_ids.append(current().request_id)
        return [
            None if each.order_id in self.unknown_orders else each.outcome.value
            for each in settlements
        ]

    async def handle(self, events: Sequence[OrderEvent]) -> list[EventResult]:
        return await handle_events(cast("InventoryClient", self), cast("OrderClient", self), events)


def event(kind: StockUpdateKind = DEDUCT, request_id: str = "") -> OrderEvent:
    return OrderEvent(uuid.uuid4(), kind, {1: 1}, CallContext(request_id))


def reasons(results: Sequence[EventResult]) -> list[str]:
    """For each event the reason why it can never be handled, or ""."""
    return [str(result.poison) if result.poison else "" for result in results]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time in this test."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(stamina._core, "_smart_sleep", sleep)
    return taken


async def test_events_are_handled_with_one_call_to_each_dependency() -> None:
    dependencies = Dependencies()
    events = [event(), event(RESTORE), event()]
    shortage = Shortage(1, 1, 0)
    rejected = StockUpdateResult(StockUpdateOutcome.INSUFFICIENT_STOCK, [shortage])
    dependencies.results[events[2].order_id] = rejected
    assert await dependencies.handle(events) == [
        EventResult(APPLIED, "CONFIRMED"),
        EventResult(APPLIED, "RELEASED"),
        EventResult(rejected, "REJECTED"),
    ]
    assert dependencies.updates == [events]
    (settlements,) = dependencies.settlements
    assert [each.order_id for each in settlements] == [each.order_id for each in events]
    assert settlements[2].shortages == [shortage]


async def test_an_order_cancelled_before_is_not_settled() -> None:
    dependencies = Dependencies()
    late = event()
    dependencies.results[late.order_id] = StockUpdateResult(StockUpdateOutcome.CANCELLED)
    (result,) = await dependencies.handle([late])
    assert result == EventResult(StockUpdateResult(StockUpdateOutcome.CANCELLED))
    assert dependencies.settlements == []


async def test_an_event_with_an_unknown_product_is_poison_and_the_others_are_settled() -> None:
    dependencies = Dependencies()
    events = [event(), event()]
    dependencies.results[events[0].order_id] = StockUpdateResult(
        StockUpdateOutcome.UNKNOWN_PRODUCT, unknown_product_ids=[7, 8]
    )
    results = await dependencies.handle(events)
    assert reasons(results) == ["unknown_product: [7, 8]", ""]
    assert [each.order_id for each in dependencies.settlements[0]] == [events[1].order_id]


async def test_stock_of_an_unknown_order_is_restored_and_its_event_is_poison() -> None:
    dependencies = Dependencies()
    events = [event(), event()]
    unknown = events[0].order_id
    dependencies.unknown_orders = {unknown}
    results = await dependencies.handle(events)
    assert reasons(results) == [f"unknown_order: {unknown}", ""]
    (restore,) = dependencies.updates[1]
    assert (restore.order_id, restore.kind) == (unknown, RESTORE)


async def test_a_call_for_one_event_has_its_context_and_a_call_for_many_has_none() -> None:
    def refuse_batches(events: Sequence[OrderEvent]) -> ServiceError | None:
        return InvalidArgument("INVALID_QUANTITY", "one of them") if len(events) > 1 else None

    dependencies = Dependencies(refuse_batches)
    results = await dependencies.handle([event(request_id="a"), event(request_id="b")])
    assert reasons(results) == ["", ""]
    assert dependencies.request_ids == ["", "a", "a", "b", "b"]
    assert current() == CallContext()


async def test_the_event_that_a_dependency_refuses_is_poison_and_the_others_are_handled() -> None:
    events = [event(), event(), event()]

    def refuse_the_second(called_for: Sequence[OrderEvent]) -> ServiceError | None:
        refused = events[1] in called_for
        return InvalidArgument("INVALID_QUANTITY", "too many") if refused else None

    dependencies = Dependencies(refuse_the_second)
    results = await dependencies.handle(events)
    assert reasons(results) == ["", "invalid_quantity: too many", ""]
    assert [len(called_for) for called_for in dependencies.updates] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("DOWN", "down"),
        ResourceExhausted("FULL", "full"),
        Aborted("CONFLICT", "conflict"),
        error_from_code(Code.DEADLINE_EXCEEDED, "SLOW", "slow", {}),
        error_from_code(Code.CANCELLED, "CANCELLED", "cancelled", {}),
    ],
    ids=lambda error: error.code.name,
)
async def test_transient_errors_are_retried_however_many_there_are(
    pauses: list[float], error: ServiceError
) -> None:
    failures = iter([error] * 50)
    dependencies = Dependencies(lambda _: next(failures, None))
    assert reasons(await dependencies.handle([event()])) == [""]
    assert len(pauses) == 50


@pytest.mark.parametrize(
    "error",
    [Internal("INTERNAL", "a bug"), error_from_code(Code.UNKNOWN, "UNKNOWN", "a bug", {})],
    ids=lambda error: error.code.name,
)
async def test_other_errors_are_retried_a_few_times(
    pauses: list[float], error: ServiceError
) -> None:
    dependencies = Dependencies(lambda _: error)
    assert reasons(await dependencies.handle([event()])) == [f"{error.reason.lower()}: a bug"]
    assert len(dependencies.updates) == MAX_INTERNAL_ERRORS


async def test_transient_errors_do_not_count_as_internal_ones(pauses: list[float]) -> None:
    internal, transient = Internal("INTERNAL", "a bug"), Unavailable("DOWN", "down")
    failures = iter([internal, transient, transient] * (MAX_INTERNAL_ERRORS - 1))
    dependencies = Dependencies(lambda _: next(failures, None))
    assert reasons(await dependencies.handle([event()])) == [""]
    assert len(pauses) == 3 * (MAX_INTERNAL_ERRORS - 1)


async def test_an_error_that_is_not_the_dependencys_is_raised() -> None:
    class Broken(Dependencies):
        async def settle_orders(self, settlements: Sequence[Settlement]) -> list[str | None]:
            raise LookupError("a bug of ours")

    with pytest.raises(LookupError):
        await Broken().handle([event()])


async def test_the_log_names_the_dependency_that_is_waited_for(pauses: list[float]) -> None:
    failures = iter([Unavailable("DOWN", "down")])
    dependencies = Dependencies(lambda _: next(failures, None))
    set_on_retry_hooks([log_retry])
    with structlog.testing.capture_logs() as logged:
        await dependencies.handle([event()])
    set_on_retry_hooks(None)
    assert [(each["event"], each["task"]) for each in logged] == [("backing off", "update stock")]
