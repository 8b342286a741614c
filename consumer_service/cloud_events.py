"""Reads order events from CloudEvents envelopes."""

import uuid
from collections import Counter
from typing import Annotated, TypeVar

import msgspec

from consumer_service.domain import OrderEvent, PoisonMessage
from proto.events import DATA_SCHEMA, ORDER_CANCELLED, ORDER_CREATED, SPEC_VERSION
from proto.limits import MAX_ORDER_ITEMS, MAX_QUANTITY
from proto.stock import StockUpdateKind
from service_kit.context import CallContext

T = TypeVar("T")

_KINDS = {ORDER_CREATED: StockUpdateKind.DEDUCT, ORDER_CANCELLED: StockUpdateKind.RESTORE}


class _Envelope(msgspec.Struct):
    specversion: str
    type: str
    data: msgspec.Raw
    dataschema: str = ""


class _Item(msgspec.Struct):
    product_id: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUANTITY)]


class _Data(msgspec.Struct):
    order_id: uuid.UUID
    # More items than an order may have might not fit into one gRPC message with those of a batch.
    items: Annotated[list[_Item], msgspec.Meta(min_length=1, max_length=MAX_ORDER_ITEMS)]


_envelopes = msgspec.json.Decoder(_Envelope)
_data = msgspec.json.Decoder(_Data)


def read_event(body: bytes, context: CallContext) -> OrderEvent:
    """The event in a message body; quantities of a repeated product are summed.

    Raises PoisonMessage: `unreadable`, `unknown_version` or `unknown_type`.
    """
    envelope = _decode(_envelopes, body)
    version = f"{envelope.specversion} {envelope.dataschema}"
    if version != f"{SPEC_VERSION} {DATA_SCHEMA}":
        raise PoisonMessage("unknown_version", version)
    if envelope.type not in _KINDS:
        raise PoisonMessage("unknown_type", envelope.type)
    data = _decode(_data, envelope.data)
    quantities: Counter[int] = Counter()
    for item in data.items:
        quantities[item.product_id] += item.quantity
    return OrderEvent(data.order_id, _KINDS[envelope.type], quantities, context)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonMessage("unreadable", str(error)) from error
