"""Bugs that the fault matrix must find, planted into a service's process at its start."""

import uuid
from collections.abc import Collection, Sequence
from typing import Any

import aiormq
from sqlalchemy import text

from inventory_service import repository as ledger
from order_service import outbox, storage


def plant(name: str) -> None:
    """Put the bug of this name into this process."""
    _PLANTS[name]()


def _ack_first() -> None:
    consume = aiormq.Channel.basic_consume

    async def without_acks(self: aiormq.Channel, *args: Any, **kwargs: Any) -> Any:
        return await consume(self, *args, **kwargs, no_ack=True)

    async def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    aiormq.Channel.basic_consume = without_acks  # type: ignore[method-assign]
    aiormq.Channel.basic_ack = nothing  # type: ignore[method-assign]


def _no_ledger() -> None:
    statement = ledger._RECORD.text
    insert = "INSERT INTO stock_movements (order_id, kind, product_id, delta)"
    assert insert in statement
    ledger._RECORD = text(statement.replace(insert, ""))


def _apply_again() -> None:
    async def nothing_decided(
        connection: object, order_ids: Collection[uuid.UUID]
    ) -> dict[uuid.UUID, Any]:
        return {}

    statement = ledger._RECORD.text
    count = "SELECT count(*) FROM opened"
    assert count in statement
    ledger.lock_reservations = nothing_decided
    ledger._RECORD = text(statement.replace(count, "SELECT cardinality(CAST(:orders AS uuid[]))"))


def _mark_first() -> None:
    unsent = outbox.unsent

    async def marked(connection: Any, limit: int) -> list[Any]:
        events = await unsent(connection, limit)
        if events:
            await outbox.mark_sent(connection, [event.id for event in events])
        return events

    outbox.unsent = marked


def _accept_unstored() -> None:
    insert = storage.insert_orders

    async def but_the_last(connection: Any, new: Sequence[Any], next_offer_at: Any) -> Any:
        stored = await insert(connection, new[:-1], next_offer_at) if new[1:] else set()
        return stored | {new[-1].order.id}

    storage.insert_orders = but_the_last


_PLANTS = {
    "messages are acked before the work": _ack_first,
    "the ledger gets no rows": _no_ledger,
    "rows are marked before the confirm": _mark_first,
    "stock moves once more for each delivery": _apply_again,
    "an order is accepted before it is stored": _accept_unstored,
}
