"""Reads order events from CloudEvents envelopes."""

import uuid
from collections import Counter
from typing import Annotated

import msgspec

from consumer_service.models import Kind, OrderEvent, PoisonError
from proto.events import (
    DATA_SCHEMA,
    ORDER_CANCELLED,
    ORDER_CREATED,
    SPEC_VERSION,
)
from service_kit.context import CallContext

MAX_ITEMS = 100
"""As many as an order may have; a batch with more might not fit into one gRPC message."""

_KINDS = {ORDER_CREATED: Kind.DEDUCT, ORDER_CANCELLED: Kind.RESTORE}


class _Envelope(msgspec.Struct):
    specversion: str
    type: str
    data: msgspec.Raw
    dataschema: str = ""


class _Item(msgspec.Struct):
    product_id: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class _Data(msgspec.Struct):
    order_id: uuid.UUID
    items: Annotated[list[_Item], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


_envelopes = msgspec.json.Decoder(_Envelope)
_data = msgspec.json.Decoder(_Data)


def read_event(body: bytes, caller: CallContext) -> OrderEvent:
    """The event in a message body.

    Raises PoisonError: `unreadable`, `unknown_version` or `unknown_type`.
    """
    try:
        envelope = _envelopes.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError("unreadable", str(error)) from error
    version = f"{envelope.specversion} {envelope.dataschema}"
    if version != f"{SPEC_VERSION} {DATA_SCHEMA}":
        raise PoisonError("unknown_version", version)
    if envelope.type not in _KINDS:
        raise PoisonError("unknown_type", envelope.type)
    try:
        data = _data.decode(envelope.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError("unreadable", str(error)) from error
    quantities: Counter[int] = Counter()
    for item in data.items:
        quantities[item.product_id] += item.quantity
    return OrderEvent(data.order_id, _KINDS[envelope.type], quantities, caller)
