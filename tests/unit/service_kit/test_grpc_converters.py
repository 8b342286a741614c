"""UUIDs and timestamps as protobuf messages carry them."""

import datetime as dt
import uuid

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import InvalidArgument
from service_kit.grpc.converters import from_timestamp, parse_uuid, to_timestamp

UTC_MOMENTS = st.datetimes(
    min_value=dt.datetime(1, 1, 2),  # noqa: DTZ001 - the strategy adds the time zone
    max_value=dt.datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda n: dt.timezone(dt.timedelta(minutes=n)))


@given(UTC_MOMENTS, OFFSETS)
def test_a_moment_comes_back_exact_to_the_microsecond(
    moment: dt.datetime, offset: dt.timezone
) -> None:
    returned = from_timestamp(to_timestamp(moment.astimezone(offset)))
    assert returned == moment
    assert returned.tzinfo is dt.UTC


@given(UTC_MOMENTS)
def test_a_timestamp_is_the_one_that_protobuf_itself_makes(moment: dt.datetime) -> None:
    expected = Timestamp()
    expected.FromDatetime(moment)
    assert to_timestamp(moment) == expected


def test_nanoseconds_are_dropped() -> None:
    moment = from_timestamp(Timestamp(seconds=1, nanos=1_999))
    assert moment == dt.datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=dt.UTC)


@given(st.uuids())
def test_a_uuid_is_read_from_its_text(value: uuid.UUID) -> None:
    assert parse_uuid(str(value), "order_id") == value


@pytest.mark.parametrize(
    "text", ["", "nonsense", "01a20794", "01a20794-d4b6-7036-81ab-9e0730fdbdbx"]
)
def test_text_that_is_no_uuid_is_refused_with_the_name_of_its_field(text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        parse_uuid(text, "order_id")
    assert (error.value.reason, error.value.message) == (
        "INVALID_ORDER_ID",
        "order_id must be a UUID",
    )
