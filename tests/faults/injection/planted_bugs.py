"""Bugs that the fault matrix must find: each is planted into a service's process at its start."""

import asyncio
import os
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from tests.faults.checks.violations import (
    LOST,
    MOVED_TWICE,
    UNBALANCED,
    UNDELIVERED,
    UNPUBLISHED,
)
from tests.faults.injection import targets
from tests.faults.injection.targets import Function
from tests.support.postgres import Database

CONSUME = "aiormq:Channel.basic_consume"
ACK = "aiormq:Channel.basic_ack"
WRITE_PLAN = "inventory_service.repository:write_plan"
LOCK_RESERVATIONS = "inventory_service.repository:lock_reservations"
UNSENT_EVENTS = "order_service.outbox.repository:unsent_events"
MARK_SENT = "order_service.outbox.repository:mark_sent"
INSERT_ORDERS = "order_service.repository:insert_orders"
TARGETS = (
    CONSUME,
    ACK,
    WRITE_PLAN,
    LOCK_RESERVATIONS,
    UNSENT_EVENTS,
    MARK_SENT,
    INSERT_ORDERS,
)

_UNIQUE_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index
WHERE indrelid = 'stock_movements'::regclass AND indisunique AND NOT indisprimary
"""
_OWN_MOVEMENTS = """
DELETE FROM stock_movements
WHERE order_id IS NOT NULL AND xmin = CAST(pg_current_xact_id() AS xid)
"""
_RESERVATIONS = "DELETE FROM reservations WHERE order_id = ANY(CAST(:order_ids AS uuid[]))"


def _ack_before_the_work() -> None:
    def without_acks(consume: Function) -> Function:
        async def consume_without_acks(*args: Any, **kwargs: Any) -> Any:
            return await consume(*args, **{**kwargs, "no_ack": True})

        return consume_without_acks

    def ignore(_ack: Function) -> Function:
        async def nothing(*_args: Any, **_kwargs: Any) -> None:
            return None

        return nothing

    targets.replace(CONSUME, without_acks)
    targets.replace(ACK, ignore)


def _lose_ledger_rows() -> None:
    def without_movements(write_plan: Function) -> Function:
        async def write_and_delete(connection: Any, *args: Any, **kwargs: Any) -> None:
            await write_plan(connection, *args, **kwargs)
            await connection.execute(text(_OWN_MOVEMENTS))

        return write_and_delete

    targets.replace(WRITE_PLAN, without_movements)


def _move_stock_for_each_delivery() -> None:
    """Forget reservations; the unique index of the ledger, which prevents this bug, is dropped."""

    def forgetful(_lock: Function) -> Function:
        async def no_reservations(
            connection: Any, order_ids: Collection[uuid.UUID]
        ) -> dict[uuid.UUID, Any]:
            await connection.execute(text(_RESERVATIONS), {"order_ids": list(order_ids)})
            return {}

        return no_reservations

    asyncio.run(_drop_unique_indexes(Database(os.environ["INVENTORY_DATABASE_URL"])))
    targets.replace(LOCK_RESERVATIONS, forgetful)


async def _drop_unique_indexes(database: Database) -> None:
    indexes = [row["indexrelid"] for row in await database.rows(_UNIQUE_INDEXES)]
    assert indexes, "stock_movements has no unique index to drop"
    for index in indexes:
        await database.rows(f"DROP INDEX {index}")


def _mark_before_the_confirm() -> None:
    mark_sent = targets.find(MARK_SENT)

    def marking(unsent: Function) -> Function:
        async def marked(connection: Any, limit: int) -> list[Any]:
            events: list[Any] = await unsent(connection, limit)
            if events:
                await mark_sent(connection, [event.id for event in events])
            return events

        return marked

    targets.replace(UNSENT_EVENTS, marking)


def _accept_without_storing() -> None:
    def without_the_last(insert: Function) -> Function:
        async def inserted(connection: Any, new: Iterable[Any], *args: Any) -> set[uuid.UUID]:
            *others, last = new
            stored = await insert(connection, others, *args) if others else set()
            return {*stored, last.order.id}

        return inserted

    targets.replace(INSERT_ORDERS, without_the_last)


@dataclass(frozen=True)
class PlantedBug:
    """A bug in a service, and the violation by which it must be found.

    `crash_point` is the step at which this service, or another one, crashes; "" if the bug shows
    without a crash. Slowness cannot cause these violations: they are about handled messages and
    stored rows.
    """

    service: str
    crash_point: str
    violation: str
    plant: Callable[[], None]


PLANTED_BUGS = {
    "messages are acked before the work": PlantedBug(
        "consumer_service",
        "the consumer is about to update stock",
        UNDELIVERED,
        _ack_before_the_work,
    ),
    "the ledger gets no rows": PlantedBug("inventory_service", "", UNBALANCED, _lose_ledger_rows),
    "events are marked before the confirm": PlantedBug(
        "order_service",
        "the relay is about to call the producer",
        UNPUBLISHED,
        _mark_before_the_confirm,
    ),
    "stock moves once more for each delivery": PlantedBug(
        "inventory_service",
        "stock is updated and no order is settled",
        MOVED_TWICE,
        _move_stock_for_each_delivery,
    ),
    "an order is accepted before it is stored": PlantedBug(
        "order_service", "", LOST, _accept_without_storing
    ),
}
"""Every bug, by its name."""
