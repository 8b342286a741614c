"""The rules of orders: requests, prices, idempotency, cancellation and settlement."""

import datetime as dt
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_service.domain import (
    MAX_KEY_LENGTH,
    IdempotencyRecord,
    Order,
    OrderItem,
    OrderRequest,
    OrderStatus,
    ProductSnapshot,
    RequestedItem,
    Settlement,
    plan_settlements,
    priced_items,
    total_cents,
)
from order_service.operations import MAX_WAIT_SECONDS
from proto.limits import MAX_ORDER_ITEMS, MAX_QUANTITY
from proto.orders import SettlementOutcome
from proto.stock import Shortage
from service_kit.context import CallContext
from service_kit.errors import Code, ServiceError
from service_kit.grpc.server import MAX_SECONDS

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)

requested_items = st.builds(
    RequestedItem,
    product_id=st.integers(1, 5),
    quantity=st.integers(1, 50),
    unit_price_cents=st.none() | st.integers(0, 999),
)
baskets = st.lists(requested_items, min_size=1, max_size=8)


def request_for(*items: RequestedItem, key: str = "") -> OrderRequest:
    return OrderRequest(user_id=1, items=items, idempotency_key=key)


def an_order(status: OrderStatus = OrderStatus.PENDING) -> Order:
    return Order(uuid.UUID(int=1), 1, status, [], 0, NOW, NOW)


def code_and_reason(error: object) -> tuple[Code, str]:
    assert isinstance(error, ServiceError)
    return error.code, error.reason


@pytest.mark.parametrize(
    ("order_request", "expected"),
    [
        (request_for(), "INVALID_ITEMS"),
        (request_for(*[RequestedItem(1, 1)] * (MAX_ORDER_ITEMS + 1)), "INVALID_ITEMS"),
        (request_for(RequestedItem(1, 0)), "INVALID_QUANTITY"),
        (request_for(RequestedItem(1, -1)), "INVALID_QUANTITY"),
        (request_for(RequestedItem(1, 1), RequestedItem(2, MAX_QUANTITY + 1)), "INVALID_QUANTITY"),
        # Each line is valid, their sum is not: inventory is request for the sum.
        (request_for(RequestedItem(1, MAX_QUANTITY), RequestedItem(1, 1)), "INVALID_QUANTITY"),
        (request_for(RequestedItem(1, 2), RequestedItem(1, -1)), "INVALID_QUANTITY"),
        (
            request_for(RequestedItem(1, 1), key="k" * (MAX_KEY_LENGTH + 1)),
            "INVALID_IDEMPOTENCY_KEY",
        ),
        (request_for(RequestedItem(1, 1), key="a\0b"), "INVALID_IDEMPOTENCY_KEY"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused(
    order_request: OrderRequest, expected: str
) -> None:
    assert code_and_reason(order_request.violation()) == (Code.INVALID_ARGUMENT, expected)


@pytest.mark.parametrize(
    "order_request",
    [
        request_for(RequestedItem(1, 1)),
        request_for(RequestedItem(1, MAX_QUANTITY)),
        request_for(*[RequestedItem(1, 1)] * MAX_ORDER_ITEMS),
        request_for(RequestedItem(1, 1), key="k" * MAX_KEY_LENGTH),
    ],
)
def test_a_request_at_the_limits_is_accepted(order_request: OrderRequest) -> None:
    assert order_request.violation() is None


@given(baskets)
def test_quantities_of_a_repeated_product_are_summed(items: list[RequestedItem]) -> None:
    quantities = request_for(*items).quantities()
    assert list(quantities) == list(dict.fromkeys(item.product_id for item in items))
    assert sum(quantities.values()) == sum(item.quantity for item in items)


@given(baskets, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_change_what_a_request_means(
    items: list[RequestedItem], randomly: random.Random
) -> None:
    shuffled = list(items)
    randomly.shuffle(shuffled)
    assert request_for(*items).fingerprint() == request_for(*shuffled).fingerprint()


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_repeated_product_means_the_same_as_its_sum(first: int, second: int) -> None:
    twice = request_for(RequestedItem(1, first), RequestedItem(1, second))
    assert twice.fingerprint() == request_for(RequestedItem(1, first + second)).fingerprint()


@given(baskets, baskets)
def test_requests_that_mean_different_orders_have_different_fingerprints(
    one: list[RequestedItem], other: list[RequestedItem]
) -> None:
    if request_for(*one).quantities() != request_for(*other).quantities():
        assert request_for(*one).fingerprint() != request_for(*other).fingerprint()


def test_another_price_means_another_request() -> None:
    prints = {request_for(RequestedItem(1, 1, price)).fingerprint() for price in (None, 0, 1, 11)}
    assert len(prints) == 4


def test_context_and_key_do_not_change_what_a_request_means() -> None:
    assert (
        request_for(RequestedItem(1, 1), key="a").fingerprint()
        == request_for(RequestedItem(1, 1)).fingerprint()
    )


def test_items_have_the_current_name_and_price() -> None:
    snapshots = {1: ProductSnapshot("Tea", 250, 10), 2: ProductSnapshot("Cup", 0, 1)}
    request = request_for(RequestedItem(2, 1), RequestedItem(1, 4, 250), RequestedItem(1, 6))
    assert priced_items(request, snapshots) == [
        OrderItem(2, "Cup", 1, 0),
        OrderItem(1, "Tea", 10, 250),
    ]


@pytest.mark.parametrize(
    ("item", "code", "expected", "metadata"),
    [
        (RequestedItem(9, 1), Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT", {"product_id": "9"}),
        (
            RequestedItem(1, 1, 249),
            Code.FAILED_PRECONDITION,
            "PRICE_CHANGED",
            {"product_id": "1", "unit_price_cents": "250"},
        ),
        (
            RequestedItem(1, 11),
            Code.FAILED_PRECONDITION,
            "INSUFFICIENT_STOCK",
            {"product_id": "1", "requested": "11", "available": "10"},
        ),
    ],
)
def test_items_that_inventory_does_not_cover_are_refused(
    item: RequestedItem, code: Code, expected: str, metadata: dict[str, str]
) -> None:
    with pytest.raises(ServiceError) as refused:
        priced_items(request_for(item), {1: ProductSnapshot("Tea", 250, 10)})
    assert code_and_reason(refused.value) == (code, expected)
    assert refused.value.metadata == metadata


def test_stock_must_cover_the_sum_of_a_repeated_product() -> None:
    with pytest.raises(ServiceError) as refused:
        priced_items(
            request_for(RequestedItem(1, 6), RequestedItem(1, 5)),
            {1: ProductSnapshot("Tea", 250, 10)},
        )
    assert code_and_reason(refused.value) == (Code.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")


def test_a_total_beyond_int64_is_refused() -> None:
    dear = {number: ProductSnapshot("Yacht", 10**12, 10**12) for number in range(1, 11)}
    items = [RequestedItem(number, MAX_QUANTITY) for number in dear]
    with pytest.raises(ServiceError) as refused:
        priced_items(request_for(*items), dear)
    assert code_and_reason(refused.value) == (Code.INVALID_ARGUMENT, "INVALID_ITEMS")


@given(baskets)
def test_the_total_is_the_sum_of_quantities_at_current_prices(items: list[RequestedItem]) -> None:
    snapshots = {number: ProductSnapshot("Thing", number * 7, 10**6) for number in range(1, 6)}
    request = request_for(*(RequestedItem(item.product_id, item.quantity) for item in items))
    assert total_cents(priced_items(request, snapshots)) == sum(
        item.quantity * item.product_id * 7 for item in items
    )


def test_a_repeated_key_returns_the_order_stored_under_it() -> None:
    request = request_for(RequestedItem(1, 2), key="a")
    stored = IdempotencyRecord(an_order(), request.fingerprint())
    assert stored.replay(request) is stored.order


def test_a_key_with_another_request_is_refused() -> None:
    stored = IdempotencyRecord(an_order(), request_for(RequestedItem(1, 2)).fingerprint())
    refusal = stored.replay(request_for(RequestedItem(1, 3), key="a"))
    assert code_and_reason(refusal) == (Code.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize("status", [OrderStatus.PENDING, OrderStatus.CONFIRMED])
def test_pending_and_confirmed_orders_can_be_cancelled(status: OrderStatus) -> None:
    assert an_order(status).cancelled() == an_order(OrderStatus.CANCELLED)


def test_a_rejected_order_cannot_be_cancelled() -> None:
    with pytest.raises(ServiceError) as refused:
        an_order(OrderStatus.REJECTED).cancelled()
    assert code_and_reason(refused.value) == (Code.FAILED_PRECONDITION, "NOT_CANCELLABLE")
    assert refused.value.metadata == {"status": "REJECTED"}


@pytest.mark.parametrize(
    ("item", "stock", "message"),
    [
        (RequestedItem(9, 1), 3, "Product 9 does not exist."),
        (RequestedItem(7, 1, 249), 3, "The price of product 7 has changed."),
        (RequestedItem(7, 4), 3, "Only 3 of product 7 are in stock."),
        (RequestedItem(7, 4), 1, "Only 1 of product 7 is in stock."),
    ],
)
def test_refusals_are_sentences_for_users(item: RequestedItem, stock: int, message: str) -> None:
    with pytest.raises(ServiceError) as refused:
        priced_items(request_for(item), {7: ProductSnapshot("Tea", 250, stock)})
    assert refused.value.message == message


def test_the_longest_wait_for_an_order_ends_before_the_longest_call() -> None:
    # Otherwise a call that waits as long as allowed gets DEADLINE_EXCEEDED instead of the order.
    assert MAX_WAIT_SECONDS < MAX_SECONDS


FIRST, SECOND = CallContext("first"), CallContext("second")
SHORTAGES = (Shortage(1, 3, 2),)


def settled_as(outcome: SettlementOutcome, context: CallContext = FIRST) -> Settlement:
    shortages = SHORTAGES if outcome is SettlementOutcome.REJECTED else ()
    return Settlement(an_order().id, outcome, shortages, context)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (SettlementOutcome.CONFIRMED, OrderStatus.CONFIRMED),
        (SettlementOutcome.REJECTED, OrderStatus.REJECTED),
    ],
)
def test_a_pending_order_is_settled(outcome: SettlementOutcome, status: OrderStatus) -> None:
    order = an_order()
    plan = plan_settlements([settled_as(outcome)], {order.id: order})
    assert plan.settled[order.id].status is status
    assert plan.settled[order.id].shortages == settled_as(outcome).shortages
    assert plan.contexts == {order.id: FIRST}
    assert not plan.released


def test_of_two_settlements_of_one_order_the_first_counts() -> None:
    order = an_order()
    settlements = [
        settled_as(SettlementOutcome.CONFIRMED, FIRST),
        settled_as(SettlementOutcome.REJECTED, SECOND),
        settled_as(SettlementOutcome.RELEASED, SECOND),
    ]
    plan = plan_settlements(settlements, {order.id: order})
    assert plan.settled == {order.id: an_order(OrderStatus.CONFIRMED)}
    assert plan.contexts == {order.id: FIRST}
    assert not plan.released


@pytest.mark.parametrize("status", sorted(set(OrderStatus) - {OrderStatus.PENDING}))
@pytest.mark.parametrize("outcome", [SettlementOutcome.CONFIRMED, SettlementOutcome.REJECTED])
def test_an_order_that_is_not_pending_is_not_settled(
    status: OrderStatus, outcome: SettlementOutcome
) -> None:
    order = an_order(status)
    plan = plan_settlements([settled_as(outcome)], {order.id: order})
    assert not any(plan)


@pytest.mark.parametrize("status", OrderStatus)
def test_only_a_cancelled_order_is_released(status: OrderStatus) -> None:
    order = an_order(status)
    plan = plan_settlements([settled_as(SettlementOutcome.RELEASED)], {order.id: order})
    assert not plan.settled
    assert plan.released == ([order.id] if status is OrderStatus.CANCELLED else [])


def test_settlements_of_unknown_orders_are_skipped() -> None:
    assert not any(plan_settlements([settled_as(each) for each in SettlementOutcome], {}))
