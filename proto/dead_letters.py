"""The headers of dead letters, and how to read order, reason and time from a message."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import orjson

REASON_HEADER = "x-dead-letter-reason"
"""Why the message can never be handled."""

TIME_HEADER = "x-dead-letter-time"
"""When the message became a dead letter (RFC 3339)."""


def order_id_of(body: bytes) -> str:
    """The order that the event in `body` is about; "" if its envelope cannot be read."""
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(envelope.get("subject", "")) if isinstance(envelope, dict) else ""


def reason_of(headers: Mapping[str, Any]) -> str:
    """Why it is a dead letter: the consumer's reason, or else the broker's; "" if neither is."""
    return str(headers.get(REASON_HEADER) or _first_death(headers).get("reason") or "")


def dead_since(headers: Mapping[str, Any]) -> dt.datetime | None:
    """When it became a dead letter, if the consumer or else the broker noted that."""
    time = headers.get(TIME_HEADER)
    return dt.datetime.fromisoformat(str(time)) if time else _first_death(headers).get("time")


def _first_death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    deaths: Any = headers.get("x-death")
    return deaths[0] if deaths else {}
