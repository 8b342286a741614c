"""What order_service does: accept, show, cancel and settle orders."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from order_service import repository
from order_service.clients import InventoryClient, UserClient
from order_service.domain import (
    IdempotencyKey,
    IdempotencyRecord,
    NewOrder,
    Order,
    OrderRequest,
    OrderStatus,
    ProductSnapshot,
    Settlement,
    plan_settlements,
    priced_items,
    total_cents,
)
from order_service.outbox.events import order_event
from order_service.wakeups import Wakeups
from service_kit.context import CallContext
from service_kit.errors import InvalidArgument, NotFound, PermissionDenied, ServiceError
from service_kit.pagination import decode_uuid_token, page_size, split_page
from service_kit.postgres.engine import autocommit, dry_run, retrying_conflicts

log = structlog.get_logger(__name__)

MAX_BATCH = 1_000
MAX_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.25
"""How soon a call that waits sees a settlement that another order service wrote."""


@dataclass(frozen=True, slots=True)
class OrderDependencies:
    """What the operations work with."""

    engine: AsyncEngine
    users: UserClient
    inventory: InventoryClient
    wakeups: Wakeups
    republish_seconds: float

    def next_republish_at(self, now: dt.datetime) -> dt.datetime:
        """When the first new event is published, unless inventory has answered by then."""
        return now + dt.timedelta(seconds=self.republish_seconds)


class _Lookups(NamedTuple):
    """What is known about the requests of a batch."""

    records: Mapping[IdempotencyKey, IdempotencyRecord]
    active_users: AbstractSet[int]
    products: Mapping[int, ProductSnapshot]


class _Decision(NamedTuple):
    """The result of one request; `new` is set if it is an order that has to be stored first."""

    result: Order | ServiceError
    new: NewOrder | None = None


@retrying_conflicts
async def create_orders(
    dependencies: OrderDependencies, requests: Sequence[OrderRequest]
) -> list[Order | ServiceError]:
    """Store each order as PENDING with its event, or say why not; in the order of the requests.

    A request whose (user, idempotency key) is known gives the order stored under it. If users or
    inventory are unavailable, their error is raised and nothing is stored.
    """
    _check_batch(len(requests), "orders")
    violations = [request.violation() for request in requests]
    checked = list(zip(requests, violations, strict=True))
    valid = [request for request, violation in checked if violation is None]
    lookups = await _look_up(dependencies, valid)
    now = dt.datetime.now(dt.UTC)
    decisions = [
        _decide(request, lookups, now) if violation is None else _Decision(violation)
        for request, violation in checked
    ]
    new = [decision.new for decision in decisions if decision.new is not None]
    stored = await _store(dependencies, new, now)
    # Another request with the same key was stored first: at the same moment, or in this batch.
    late = [each.request for each in new if each.order.id not in stored]
    records = await _find_records(dependencies, late)
    return [
        decision.result
        if decision.new is None or decision.new.order.id in stored
        else records[_key(decision.new.request)].replay(decision.new.request)
        for decision in decisions
    ]


async def get_order(
    dependencies: OrderDependencies, order_id: uuid.UUID, user_id: int, wait_seconds: float = 0.0
) -> Order:
    """The order with its history, NotFound if it does not belong to `user_id` (0: anyone).

    Waits up to `wait_seconds` for it to leave PENDING.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait_seconds, MAX_WAIT_SECONDS)
    with dependencies.wakeups.watching(order_id) as changed:
        while True:
            changed.clear()
            order = await _load(dependencies, order_id, user_id)
            left = deadline - loop.time()
            if order.status is not OrderStatus.PENDING or left <= 0:
                return order
            try:
                async with asyncio.timeout(min(left, _POLL_SECONDS)):
                    await changed.wait()
            except TimeoutError:
                continue


async def list_orders(
    dependencies: OrderDependencies,
    *,
    user_id: int,
    status: OrderStatus | None,
    size: int,
    token: str,
) -> tuple[list[Order], str]:
    """A page of orders, newest first, and the token of the next page ("" at the end)."""
    size, before = page_size(size), decode_uuid_token(token)
    async with autocommit(dependencies.engine) as connection:
        found = await repository.list_ids(
            connection, user_id=user_id, status=status, before=before, limit=size + 1
        )
        ids, next_token = split_page(found, size, str)
        orders = await repository.load_orders(connection, ids)
    return [orders[order_id] for order_id in ids], next_token


async def cancel_order(
    dependencies: OrderDependencies, order_id: uuid.UUID, user_id: int, context: CallContext
) -> Order:
    """Cancel a PENDING or CONFIRMED order of `user_id` (0: anyone); twice changes nothing.

    Raises NotFound, or FailedPrecondition (NOT_CANCELLABLE) for a rejected order.
    """
    # Again if the order was settled meanwhile: it is CANCELLED then, or raises.
    while (
        order := await _load(dependencies, order_id, user_id)
    ).status is not OrderStatus.CANCELLED:
        now = dt.datetime.now(dt.UTC)
        event = order_event(order.cancelled(), context, now)
        async with autocommit(dependencies.engine) as connection:
            await repository.cancel_order(
                connection, event, now, dependencies.next_republish_at(now)
            )
        dependencies.wakeups.notify((order_id,))
    return order


@retrying_conflicts
async def settle_orders(
    dependencies: OrderDependencies,
    settlements: Sequence[Settlement],
    *,
    validate_only: bool = False,
) -> dict[uuid.UUID, OrderStatus]:
    """Record what inventory decided; returns the status of each existing order now.

    `plan_settlements` says which settlements count; the events of the orders that change are
    written with them. Repeating changes nothing. With `validate_only` it is all rolled back.
    """
    _check_batch(len(settlements), "settlements")
    ids = [settlement.order_id for settlement in settlements]
    now = dt.datetime.now(dt.UTC)
    begin = dry_run if validate_only else autocommit
    async with begin(dependencies.engine) as connection:
        orders = await repository.load_headers(connection, ids)
        plan = plan_settlements(settlements, orders)
        settled: set[uuid.UUID] = set()
        if plan.settled:
            events = [order_event(o, plan.contexts[o.id], now) for o in plan.settled.values()]
            settled = await repository.settle_orders(connection, plan.settled.values(), events, now)
        if plan.released:
            await repository.release_orders(connection, plan.released)
        if len(settled) < len(plan.settled):  # others were settled or cancelled meanwhile
            orders = await repository.load_headers(connection, ids)
    if settled and not validate_only:
        dependencies.wakeups.notify(settled)
        lines = [(i, plan.settled[i].status, plan.contexts[i].request_id) for i in settled]
        log.info("orders settled", orders=lines)
    current = orders | {order_id: plan.settled[order_id] for order_id in settled}
    return {order_id: order.status for order_id, order in current.items()}


def _check_batch(size: int, what: str) -> None:
    if size > MAX_BATCH:
        raise InvalidArgument(
            "TOO_MANY_ITEMS", f"At most {MAX_BATCH:,} {what} are allowed in one call."
        )


async def _look_up(dependencies: OrderDependencies, requests: Sequence[OrderRequest]) -> _Lookups:
    return _Lookups(
        *await asyncio.gather(
            _find_records(dependencies, requests),
            dependencies.users.active_users({request.user_id for request in requests}),
            dependencies.inventory.products(
                {item.product_id for request in requests for item in request.items}
            ),
        )
    )


async def _find_records(
    dependencies: OrderDependencies, requests: Sequence[OrderRequest]
) -> dict[IdempotencyKey, IdempotencyRecord]:
    keys = [_key(request) for request in requests if request.idempotency_key]
    if not keys:
        return {}
    async with autocommit(dependencies.engine) as connection:
        return await repository.find_idempotency_records(connection, keys)


def _key(request: OrderRequest) -> IdempotencyKey:
    return request.user_id, request.idempotency_key


def _decide(request: OrderRequest, lookups: _Lookups, now: dt.datetime) -> _Decision:
    record = lookups.records.get(_key(request))
    if record is not None:
        return _Decision(record.replay(request))
    if request.user_id not in lookups.active_users:
        return _Decision(PermissionDenied("USER_INACTIVE", "This user may not place orders."))
    try:
        items = priced_items(request, lookups.products)
    except ServiceError as refusal:
        return _Decision(refusal)
    order = Order(
        id=uuid7(),
        user_id=request.user_id,
        status=OrderStatus.PENDING,
        items=items,
        total_cents=total_cents(items),
        created_at=now,
        updated_at=now,
    )
    return _Decision(order, NewOrder(order, request, order_event(order, request.context, now)))


async def _store(
    dependencies: OrderDependencies, new: Sequence[NewOrder], now: dt.datetime
) -> set[uuid.UUID]:
    """Store new orders; returns the ids of those whose idempotency key was not taken."""
    if not new:
        return set()
    async with autocommit(dependencies.engine) as connection:
        stored = await repository.insert_orders(
            connection, new, dependencies.next_republish_at(now)
        )
    dependencies.wakeups.notify()
    # One line for all: a line for each would cost as much as storing it.
    accepted = [(o.id, r.context.request_id) for o, r, _ in new if o.id in stored]
    log.info("orders accepted", orders=accepted)
    return stored


async def _load(dependencies: OrderDependencies, order_id: uuid.UUID, user_id: int) -> Order:
    async with autocommit(dependencies.engine) as connection:
        found = await repository.load_orders(connection, [order_id], history=True)
    order = found.get(order_id)
    if order is None or user_id not in (0, order.user_id):
        raise NotFound("ORDER_NOT_FOUND", f"Order {order_id} does not exist.")
    return order
