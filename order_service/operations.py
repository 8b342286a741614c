"""What order_service does: accept, show, cancel and settle orders."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from order_service import storage
from order_service.clients import InventoryClient, UserClient
from order_service.events import order_event
from order_service.models import (
    CANCELLABLE,
    Caller,
    Draft,
    Order,
    Settlement,
    Snapshot,
    Status,
    StoredKey,
    not_cancellable,
    priced_items,
)
from order_service.storage import NewOrder
from order_service.wakeups import Wakeups
from service_kit.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
)
from service_kit.pagination import decode_token, encode_token, invalid_token, page_size
from service_kit.postgres.engine import autocommit, dry_run, retrying_conflicts

log = structlog.get_logger(__name__)

MAX_BATCH = 1_000
MAX_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.25
"""How soon a waiter sees a settlement that another order service wrote."""

Known = Mapping[tuple[int, str], StoredKey]


@dataclass(frozen=True, slots=True)
class Shop:
    """What the operations work with."""

    engine: AsyncEngine
    users: UserClient
    inventory: InventoryClient
    wakeups: Wakeups
    reoffer_seconds: float

    def next_offer_at(self, now: dt.datetime) -> dt.datetime:
        """When an event that got no answer is published again."""
        return now + dt.timedelta(seconds=self.reoffer_seconds)


@retrying_conflicts
async def create_orders(shop: Shop, drafts: Sequence[Draft]) -> list[Order | ServiceError]:
    """Store each order as PENDING with its event, or say why not; in the order of the drafts.

    A draft whose (user, idempotency key) is known gives the order stored under it. If users or
    inventory cannot be asked, that error is raised and nothing is stored.
    """
    if len(drafts) > MAX_BATCH:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_BATCH} orders in one call")
    valid = [draft for draft in drafts if draft.is_valid()]
    known, active, snapshots = await asyncio.gather(
        _known(shop, valid),
        shop.users.active_users({draft.user_id for draft in valid}),
        shop.inventory.snapshots({item.product_id for draft in valid for item in draft.items}),
    )
    now = dt.datetime.now(dt.UTC)
    decided = [_decide(draft, known, active, snapshots, now) for draft in drafts]
    new = [each for each in decided if isinstance(each, NewOrder)]
    if not new:
        return [each for each in decided if not isinstance(each, NewOrder)]
    async with autocommit(shop.engine) as connection:
        stored = await storage.insert_orders(connection, new, shop.next_offer_at(now))
    shop.wakeups.announce(())
    # One line for all: a line for each would cost as much as storing it.
    accepted = [(o.id, draft.caller.request_id) for o, draft, _ in new if o.id in stored]
    log.info("orders accepted", orders=accepted)
    if len(stored) < len(new):
        known = await _known(shop, valid)
    return [
        _answer(draft, each, stored, known) for draft, each in zip(drafts, decided, strict=True)
    ]


async def get_order(
    shop: Shop, order_id: uuid.UUID, user_id: int, wait_seconds: float = 0.0
) -> Order:
    """The order with its history, NotFound if it is not `user_id`'s (0: anyone's).

    Waits up to `wait_seconds` for it to leave PENDING.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait_seconds, MAX_WAIT_SECONDS)
    with shop.wakeups.watching(order_id) as changed:
        while True:
            changed.clear()
            order = await _load(shop, order_id, user_id)
            left = deadline - loop.time()
            if order.status is not Status.PENDING or left <= 0:
                return order
            try:
                async with asyncio.timeout(min(left, _POLL_SECONDS)):
                    await changed.wait()
            except TimeoutError:
                continue


async def list_orders(
    shop: Shop, *, user_id: int, status: Status | None, size: int, token: str
) -> tuple[list[Order], str]:
    """A page of orders, newest first, and the token of the next page ("" at the end)."""
    size, key = page_size(size), decode_token(token)
    try:
        before = uuid.UUID(key) if key is not None else None
    except ValueError as error:
        raise invalid_token() from error
    async with autocommit(shop.engine) as connection:
        ids = await storage.page_of_ids(
            connection, user_id=user_id, status=status, before=before, limit=size + 1
        )
        found = await storage.load_orders(connection, ids[:size])
    page = [found[order_id] for order_id in ids[:size]]
    return page, encode_token(page[-1].id) if len(ids) > size else ""


async def cancel_order(shop: Shop, order_id: uuid.UUID, user_id: int, caller: Caller) -> Order:
    """Cancel a PENDING or CONFIRMED order of `user_id` (0: anyone's); twice changes nothing."""
    order = await _load(shop, order_id, user_id)
    if order.status in CANCELLABLE:
        now = dt.datetime.now(dt.UTC)
        event = order_event(order._replace(status=Status.CANCELLED), caller, now)
        async with autocommit(shop.engine) as connection:
            await storage.cancel(connection, event, now, shop.next_offer_at(now))
        shop.wakeups.announce((order_id,))
        order = await _load(shop, order_id, user_id)
    if order.status is not Status.CANCELLED:
        raise not_cancellable(order.status)
    return order


@retrying_conflicts
async def settle_orders(
    shop: Shop, settlements: Sequence[Settlement], *, validate_only: bool = False
) -> dict[uuid.UUID, Status]:
    """Record what inventory decided; returns each existing order's status now.

    Only PENDING orders move; their events are written with them. Repeating changes nothing.
    With `validate_only` it is all rolled back.
    """
    if len(settlements) > MAX_BATCH:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_BATCH} settlements in one call")
    ids = [settlement.order_id for settlement in settlements]
    now = dt.datetime.now(dt.UTC)
    opened = dry_run if validate_only else autocommit
    async with opened(shop.engine) as connection:
        found = await storage.load_headers(connection, ids)
        moves = {
            each.order_id: found[each.order_id]._replace(
                status=each.status, shortages=each.shortages
            )
            for each in reversed(settlements)
            if each.status and each.order_id in found
        }
        pending = [order for order in moves.values() if found[order.id].status is Status.PENDING]
        callers = {each.order_id: each.caller for each in settlements}
        events = [order_event(order, callers[order.id], now) for order in pending]
        moved = await storage.settle(connection, pending, events, now) if pending else set()
        released = [each.order_id for each in settlements if each.status is None]
        if released:
            await storage.release(connection, released)
        if len(moved) < len(pending):
            found = await storage.load_headers(connection, ids)
    if not validate_only:
        shop.wakeups.announce(moved)
    if moved and not validate_only:
        settled = [(o.id, o.status, callers[o.id].request_id) for o in pending if o.id in moved]
        log.info("orders settled", orders=settled)
    return {
        order.id: (moves[order.id] if order.id in moved else order).status
        for order in found.values()
    }


async def _known(shop: Shop, drafts: Sequence[Draft]) -> dict[tuple[int, str], StoredKey]:
    keys = [(draft.user_id, draft.idempotency_key) for draft in drafts if draft.idempotency_key]
    if not keys:
        return {}
    async with autocommit(shop.engine) as connection:
        return await storage.find_by_keys(connection, keys)


def _decide(
    draft: Draft,
    known: Known,
    active: AbstractSet[int],
    snapshots: Mapping[int, Snapshot],
    now: dt.datetime,
) -> Order | ServiceError | NewOrder:
    stored = known.get((draft.user_id, draft.idempotency_key))
    try:
        draft.check()
        if stored is not None:
            return stored.replay(draft)
        if draft.user_id not in active:
            raise PermissionDenied("USER_INACTIVE", "this user may not order")
        items = priced_items(draft, snapshots)
    except ServiceError as refusal:
        return refusal
    order = Order(
        id=uuid7(),
        user_id=draft.user_id,
        status=Status.PENDING,
        items=items,
        total_cents=sum(item.quantity * item.unit_price_cents for item in items),
        created_at=now,
        updated_at=now,
    )
    return NewOrder(order, draft, order_event(order, draft.caller, now))


def _answer(
    draft: Draft,
    decided: Order | ServiceError | NewOrder,
    stored: AbstractSet[uuid.UUID],
    known: Known,
) -> Order | ServiceError:
    if not isinstance(decided, NewOrder):
        return decided
    if decided.order.id in stored:
        return decided.order
    try:
        # Another request with the same key was stored at the same moment.
        return known[draft.user_id, draft.idempotency_key].replay(draft)
    except ServiceError as refusal:
        return refusal


async def _load(shop: Shop, order_id: uuid.UUID, user_id: int) -> Order:
    async with autocommit(shop.engine) as connection:
        found = await storage.load_orders(connection, [order_id], history=True)
    order = found.get(order_id)
    if order is None or user_id not in (0, order.user_id):
        raise NotFound("ORDER_NOT_FOUND", f"there is no order {order_id}")
    return order
