"""Conversions between Python values and protobuf fields."""

import datetime as dt
import uuid

from google.protobuf.timestamp_pb2 import Timestamp

from service_kit.errors import InvalidArgument

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parse_uuid(text: str, field: str) -> uuid.UUID:
    """The UUID in `text`; InvalidArgument (INVALID_ and the name of the field) if it is none."""
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise InvalidArgument(f"INVALID_{field.upper()}", f"{field} must be a UUID") from error


def to_timestamp(moment: dt.datetime) -> Timestamp:
    """The timestamp of a moment with a time zone, exact to the microsecond."""
    # Faster than Timestamp.FromDatetime, and exact where the float of timestamp() is not.
    elapsed = moment - _EPOCH
    seconds = elapsed.days * 86_400 + elapsed.seconds
    return Timestamp(seconds=seconds, nanos=elapsed.microseconds * 1000)


def from_timestamp(timestamp: Timestamp) -> dt.datetime:
    """The moment in UTC, truncated to the microsecond."""
    return _EPOCH + dt.timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
