"""The rules of an order's way: what a draft may be, what it costs, and when it is the same."""

import datetime as dt
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_service.models import Kind, StockAnswer, StockOutcome, Verdict
from order_service.models import (
    CANCELLABLE,
    MAX_ITEMS,
    MAX_KEY,
    MAX_QUANTITY,
    Draft,
    Item,
    Order,
    Snapshot,
    Status,
    StoredKey,
    WantedItem,
    not_cancellable,
    priced_items,
)
from order_service.operations import MAX_WAIT_SECONDS
from service_kit.errors import Code, ServiceError
from service_kit.grpc.server import MAX_SECONDS

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)

wanted = st.builds(
    WantedItem,
    product_id=st.integers(1, 5),
    quantity=st.integers(1, 50),
    unit_price_cents=st.none() | st.integers(0, 999),
)
baskets = st.lists(wanted, min_size=1, max_size=8)


def draft(*items: WantedItem, key: str = "") -> Draft:
    return Draft(user_id=1, items=items, idempotency_key=key)


def order(status: Status = Status.PENDING) -> Order:
    return Order(uuid.UUID(int=1), 1, status, [], 0, NOW, NOW)


def reason(refused: pytest.ExceptionInfo[ServiceError]) -> tuple[Code, str]:
    return refused.value.code, refused.value.reason


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (draft(), "INVALID_ITEMS"),
        (draft(*[WantedItem(1, 1)] * (MAX_ITEMS + 1)), "INVALID_ITEMS"),
        (draft(WantedItem(1, 0)), "INVALID_QUANTITY"),
        (draft(WantedItem(1, -1)), "INVALID_QUANTITY"),
        (draft(WantedItem(1, 1), WantedItem(2, MAX_QUANTITY + 1)), "INVALID_QUANTITY"),
        # Each line may, their sum may not: it is the sum that inventory is asked for.
        (draft(WantedItem(1, MAX_QUANTITY), WantedItem(1, 1)), "INVALID_QUANTITY"),
        (draft(WantedItem(1, 2), WantedItem(1, -1)), "INVALID_QUANTITY"),
        (draft(WantedItem(1, 1), key="k" * (MAX_KEY + 1)), "INVALID_IDEMPOTENCY_KEY"),
        (draft(WantedItem(1, 1), key="a\0b"), "INVALID_IDEMPOTENCY_KEY"),
    ],
)
def test_a_draft_that_breaks_a_rule_is_refused(asked: Draft, expected: str) -> None:
    with pytest.raises(ServiceError) as refused:
        asked.check()
    assert reason(refused) == (Code.INVALID_ARGUMENT, expected)
    assert not asked.is_valid()


@pytest.mark.parametrize(
    "asked",
    [
        draft(WantedItem(1, 1)),
        draft(WantedItem(1, MAX_QUANTITY)),
        draft(*[WantedItem(1, 1)] * MAX_ITEMS),
        draft(WantedItem(1, 1), key="k" * MAX_KEY),
    ],
)
def test_a_draft_at_the_limits_is_accepted(asked: Draft) -> None:
    asked.check()
    assert asked.is_valid()


@given(baskets)
def test_repeated_products_are_added_up(items: list[WantedItem]) -> None:
    quantities = draft(*items).quantities()
    assert list(quantities) == list(dict.fromkeys(item.product_id for item in items))
    assert sum(quantities.values()) == sum(item.quantity for item in items)


@given(baskets, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_change_what_a_request_means(
    items: list[WantedItem], randomly: random.Random
) -> None:
    shuffled = list(items)
    randomly.shuffle(shuffled)
    assert draft(*items).fingerprint() == draft(*shuffled).fingerprint()


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_product_named_twice_means_the_same_as_its_sum(first: int, second: int) -> None:
    twice = draft(WantedItem(1, first), WantedItem(1, second))
    assert twice.fingerprint() == draft(WantedItem(1, first + second)).fingerprint()


@given(baskets, baskets)
def test_requests_that_mean_different_orders_have_different_fingerprints(
    one: list[WantedItem], other: list[WantedItem]
) -> None:
    if draft(*one).quantities() != draft(*other).quantities():
        assert draft(*one).fingerprint() != draft(*other).fingerprint()


def test_another_price_means_another_request() -> None:
    prints = {draft(WantedItem(1, 1, price)).fingerprint() for price in (None, 0, 1, 11)}
    assert len(prints) == 4


def test_the_caller_and_the_key_are_no_part_of_what_a_request_means() -> None:
    assert draft(WantedItem(1, 1), key="a").fingerprint() == draft(WantedItem(1, 1)).fingerprint()


def test_items_take_name_and_price_of_now() -> None:
    snapshots = {1: Snapshot("Tea", 250, 10), 2: Snapshot("Cup", 0, 1)}
    asked = draft(WantedItem(2, 1), WantedItem(1, 4, 250), WantedItem(1, 6))
    assert priced_items(asked, snapshots) == [Item(2, "Cup", 1, 0), Item(1, "Tea", 10, 250)]


@pytest.mark.parametrize(
    ("item", "code", "expected", "metadata"),
    [
        (WantedItem(9, 1), Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT", {"product_id": "9"}),
        (
            WantedItem(1, 1, 249),
            Code.FAILED_PRECONDITION,
            "PRICE_CHANGED",
            {"product_id": "1", "unit_price_cents": "250"},
        ),
        (
            WantedItem(1, 11),
            Code.FAILED_PRECONDITION,
            "INSUFFICIENT_STOCK",
            {"product_id": "1", "requested": "11", "available": "10"},
        ),
    ],
)
def test_what_inventory_does_not_allow_is_refused(
    item: WantedItem, code: Code, expected: str, metadata: dict[str, str]
) -> None:
    with pytest.raises(ServiceError) as refused:
        priced_items(draft(item), {1: Snapshot("Tea", 250, 10)})
    assert reason(refused) == (code, expected)
    assert refused.value.metadata == metadata


def test_stock_must_cover_the_sum_of_a_repeated_product() -> None:
    with pytest.raises(ServiceError) as refused:
        priced_items(draft(WantedItem(1, 6), WantedItem(1, 5)), {1: Snapshot("Tea", 250, 10)})
    assert reason(refused) == (Code.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")


def test_a_total_beyond_int64_is_refused() -> None:
    dear = {number: Snapshot("Yacht", 10**12, 10**12) for number in range(1, 11)}
    items = [WantedItem(number, MAX_QUANTITY) for number in dear]
    with pytest.raises(ServiceError) as refused:
        priced_items(draft(*items), dear)
    assert reason(refused) == (Code.INVALID_ARGUMENT, "INVALID_ITEMS")


@given(baskets)
def test_the_total_is_the_sum_of_quantities_at_the_prices_of_now(items: list[WantedItem]) -> None:
    snapshots = {number: Snapshot("Thing", number * 7, 10**6) for number in range(1, 6)}
    asked = draft(*(WantedItem(item.product_id, item.quantity) for item in items))
    total = sum(item.quantity * item.unit_price_cents for item in priced_items(asked, snapshots))
    assert total == sum(item.quantity * item.product_id * 7 for item in items)


def test_a_key_that_comes_again_gives_the_order_stored_under_it() -> None:
    asked = draft(WantedItem(1, 2), key="a")
    stored = StoredKey(order(), asked.fingerprint())
    assert stored.replay(asked) is stored.order


def test_a_key_that_comes_with_another_request_is_refused() -> None:
    stored = StoredKey(order(), draft(WantedItem(1, 2)).fingerprint())
    with pytest.raises(ServiceError) as refused:
        stored.replay(draft(WantedItem(1, 3), key="a"))
    assert reason(refused) == (Code.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")


def test_only_pending_and_confirmed_orders_can_be_cancelled() -> None:
    assert set(CANCELLABLE) == {Status.PENDING, Status.CONFIRMED}
    refusal = not_cancellable(Status.REJECTED)
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "NOT_CANCELLABLE")
    assert refusal.metadata == {"status": "REJECTED"}


def test_the_longest_wait_for_an_order_ends_before_the_longest_call() -> None:
    # Otherwise who waits as long as is allowed gets DEADLINE_EXCEEDED instead of the order.
    assert MAX_WAIT_SECONDS < MAX_SECONDS


@pytest.mark.parametrize(
    ("kind", "outcome", "verdict"),
    [
        (Kind.DEDUCT, StockOutcome.APPLIED, Verdict.CONFIRMED),
        (Kind.DEDUCT, StockOutcome.INSUFFICIENT_STOCK, Verdict.REJECTED),
        (Kind.DEDUCT, StockOutcome.CANCELLED, None),
        (Kind.DEDUCT, StockOutcome.UNKNOWN_PRODUCT, None),
        (Kind.RESTORE, StockOutcome.APPLIED, Verdict.RELEASED),
        (Kind.RESTORE, StockOutcome.CANCELLED, Verdict.RELEASED),
        (Kind.RESTORE, StockOutcome.UNKNOWN_PRODUCT, None),
    ],
)
def test_what_inventory_answers_decides_what_the_order_is_told(
    kind: Kind, outcome: StockOutcome, verdict: Verdict | None
) -> None:
    assert StockAnswer(outcome).verdict(kind) is verdict
