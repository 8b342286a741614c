"""The rules that guard stock, over any history of updates."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from inventory_service.domain import Reservation, StockUpdate, StockUpdateResult
from inventory_service.stock_plan import PlannedMovement, StockPlan
from proto.stock import (
    ReservationState,
    Shortage,
    StockMovementKind,
    StockUpdateKind,
    StockUpdateOutcome,
)

ORDERS = [uuid.UUID(int=number) for number in range(1, 5)]
UNKNOWN = 9
APPLIED = StockUpdateResult(StockUpdateOutcome.APPLIED)
CANCELLED = StockUpdateResult(StockUpdateOutcome.CANCELLED)

stocks = st.dictionaries(st.integers(1, 4), st.integers(0, 12), min_size=1)
wanted_items = st.dictionaries(
    st.sampled_from([1, 2, 3, 4, UNKNOWN]), st.integers(1, 6), min_size=1, max_size=4
)
updates = st.builds(
    StockUpdate,
    order_id=st.sampled_from(ORDERS),
    kind=st.sampled_from([StockUpdateKind.DEDUCT, StockUpdateKind.DEDUCT, StockUpdateKind.RESTORE]),
    items=wanted_items,
)
batches = st.lists(st.lists(updates, max_size=6), max_size=6)


@dataclass
class Store:
    """What the database would hold: each batch is planned on it and written to it."""

    stock: dict[int, int]
    reservations: dict[uuid.UUID, Reservation] = field(default_factory=dict)
    ledger: list[PlannedMovement] = field(default_factory=list)

    def run(self, batch: Sequence[StockUpdate]) -> list[StockUpdateResult]:
        plan = StockPlan(dict(self.stock), dict(self.reservations), self._deducted(batch))
        results = [plan.apply(update) for update in batch]
        assert not plan.new_reservations.keys() & self.reservations.keys()
        assert not plan.new_reservations.keys() & set(plan.restored)
        self.reservations.update(plan.new_reservations)
        for order_id in plan.restored:
            self.reservations[order_id] = Reservation(ReservationState.RESTORED)
        for product_id, delta in plan.deltas().items():
            self.stock[product_id] += delta
        self.ledger += plan.movements
        assert plan.stock == self.stock
        assert plan.reservations == self.reservations
        return results

    def moved(self, order_id: uuid.UUID, kind: StockMovementKind) -> list[tuple[int, int]]:
        return [
            (item, delta)
            for order, of, item, delta in self.ledger
            if (order, of) == (order_id, kind)
        ]

    def _deducted(self, batch: Iterable[StockUpdate]) -> dict[uuid.UUID, dict[int, int]]:
        deducted: dict[uuid.UUID, dict[int, int]] = {}
        restoring = {update.order_id for update in batch if update.kind is StockUpdateKind.RESTORE}
        for order_id, kind, product_id, delta in self.ledger:
            if kind is StockMovementKind.DEDUCT and order_id in restoring:
                deducted.setdefault(order_id, {})[product_id] = -delta
        return deducted


def deduct(order_id: uuid.UUID, **items: int) -> StockUpdate:
    """`deduct(order, p1=2)` takes two of product 1."""
    return StockUpdate(
        order_id, StockUpdateKind.DEDUCT, {int(name[1:]): n for name, n in items.items()}
    )


def restore(order_id: uuid.UUID) -> StockUpdate:
    return StockUpdate(order_id, StockUpdateKind.RESTORE, {})


@given(stocks, batches)
def test_stock_is_never_negative_and_always_equals_the_ledger(
    initial: dict[int, int], history: list[list[StockUpdate]]
) -> None:
    store = Store(dict(initial))
    for batch in history:
        store.run(batch)
        moved = Counter[int]()
        for _, _, product_id, delta in store.ledger:
            moved[product_id] += delta
        assert all(stock >= 0 for stock in store.stock.values())
        assert store.stock == {item: stock + moved[item] for item, stock in initial.items()}


@given(stocks, batches)
def test_each_order_is_deducted_at_most_once_and_restored_at_most_once(
    initial: dict[int, int], history: list[list[StockUpdate]]
) -> None:
    store = Store(dict(initial))
    for batch in history:
        store.run(batch)
    rows = Counter((order, kind, item) for order, kind, item, _ in store.ledger)
    assert all(count == 1 for count in rows.values())
    for order_id in ORDERS:
        taken, given_back = (
            store.moved(order_id, kind)
            for kind in (StockMovementKind.DEDUCT, StockMovementKind.RESTORE)
        )
        assert given_back in ([], [(item, -delta) for item, delta in taken])


@given(stocks, batches)
def test_an_update_moves_all_of_its_items_or_none(
    initial: dict[int, int], history: list[list[StockUpdate]]
) -> None:
    store = Store(dict(initial))
    for update in (update for batch in history for update in batch):
        before, rows = dict(store.stock), len(store.ledger)
        (result,) = store.run([update])
        change = {item: store.stock[item] - before[item] for item in before}
        if len(store.ledger) == rows:
            assert store.stock == before
        elif update.kind is StockUpdateKind.DEDUCT:
            assert result == APPLIED
            assert change == {item: -update.items.get(item, 0) for item in before}
        else:
            assert result == APPLIED
            taken = dict(store.moved(update.order_id, StockMovementKind.DEDUCT))
            assert change == {item: -taken.get(item, 0) for item in before}


@given(stocks, batches)
def test_an_order_restored_before_it_was_deducted_never_takes_stock(
    initial: dict[int, int], history: list[list[StockUpdate]]
) -> None:
    store, tombstones = Store(dict(initial)), set[uuid.UUID]()
    for update in (update for batch in history for update in batch):
        fresh = update.order_id not in store.reservations
        (result,) = store.run([update])
        if update.kind is StockUpdateKind.RESTORE and fresh:
            tombstones.add(update.order_id)
        if update.order_id in tombstones:
            assert result == CANCELLED
            assert not store.moved(update.order_id, StockMovementKind.DEDUCT)


@given(stocks, batches)
def test_a_repeated_update_has_the_result_of_the_first_time(
    initial: dict[int, int], history: list[list[StockUpdate]]
) -> None:
    store = Store(dict(initial))
    first: dict[tuple[uuid.UUID, StockUpdateKind], StockUpdateResult] = {}
    for update in (update for batch in history for update in batch):
        (result,) = store.run([update])
        restored = store.reservations.get(update.order_id) == Reservation(ReservationState.RESTORED)
        if update.kind is StockUpdateKind.DEDUCT and restored:
            assert result == CANCELLED
        elif result.outcome is not StockUpdateOutcome.UNKNOWN_PRODUCT:
            assert result == first.setdefault((update.order_id, update.kind), result)


@given(stocks, batches)
def test_how_updates_are_batched_changes_nothing(
    initial: dict[int, int], history: list[list[StockUpdate]]
) -> None:
    together, singly, as_given = (Store(dict(initial)) for _ in range(3))
    everything = [update for batch in history for update in batch]
    results = together.run(everything)
    assert [result for update in everything for result in singly.run([update])] == results
    assert [result for batch in history for result in as_given.run(batch)] == results
    assert together == singly == as_given


@given(stocks, updates)
def test_a_shortage_names_exactly_the_items_that_are_short(
    initial: dict[int, int], update: StockUpdate
) -> None:
    (result,) = Store(dict(initial)).run(
        [StockUpdate(update.order_id, StockUpdateKind.DEDUCT, update.items)]
    )
    unknown = [item for item in update.items if item not in initial]
    short = [
        Shortage(item, quantity, initial[item])
        for item, quantity in update.items.items()
        if item in initial and initial[item] < quantity
    ]
    if unknown:
        assert result == StockUpdateResult(
            StockUpdateOutcome.UNKNOWN_PRODUCT, unknown_product_ids=unknown
        )
    elif short:
        assert result == StockUpdateResult(StockUpdateOutcome.INSUFFICIENT_STOCK, short)
    else:
        assert result == APPLIED


def test_an_unknown_product_is_not_recorded_and_can_be_created_and_ordered_again() -> None:
    store = Store({1: 5})
    (refused,) = store.run([deduct(ORDERS[0], p1=1, p9=1)])
    assert refused == StockUpdateResult(
        StockUpdateOutcome.UNKNOWN_PRODUCT, unknown_product_ids=[UNKNOWN]
    )
    assert store == Store({1: 5})
    store.stock[UNKNOWN] = 1
    assert store.run([deduct(ORDERS[0], p1=1, p9=1)]) == [APPLIED]


def test_a_rejected_order_stays_rejected_when_stock_comes_back() -> None:
    store = Store({1: 1})
    rejection = StockUpdateResult(StockUpdateOutcome.INSUFFICIENT_STOCK, [Shortage(1, 2, 1)])
    assert store.run([deduct(ORDERS[0], p1=2)]) == [rejection]
    store.stock[1] = 100
    assert store.run([deduct(ORDERS[0], p1=2)]) == [rejection]
    assert store.stock == {1: 100}


def test_restoring_a_rejected_order_moves_nothing_and_is_cancelled() -> None:
    store = Store({1: 1})
    store.run([deduct(ORDERS[0], p1=2)])
    assert store.run([restore(ORDERS[0])]) == [CANCELLED]
    assert store.ledger == []


def test_a_shortage_fails_its_order_alone_and_leaves_the_stock_to_the_next() -> None:
    store = Store({1: 3, 2: 0})
    results = store.run(
        [deduct(ORDERS[0], p1=3, p2=1), deduct(ORDERS[1], p1=3), deduct(ORDERS[2], p1=1)]
    )
    assert [result.outcome for result in results] == [
        StockUpdateOutcome.INSUFFICIENT_STOCK,
        StockUpdateOutcome.APPLIED,
        StockUpdateOutcome.INSUFFICIENT_STOCK,
    ]
    assert store.stock == {1: 0, 2: 0}


def test_what_a_restore_puts_back_in_the_same_batch_can_be_taken_by_the_next_order() -> None:
    store = Store({1: 2})
    store.run([deduct(ORDERS[0], p1=2)])
    results = store.run([restore(ORDERS[0]), deduct(ORDERS[1], p1=2)])
    assert results == [APPLIED] * 2
    assert store.stock == {1: 0}
