"""Errors on their way through gRPC's rich status."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import Code, NotFound, ServiceError, Unavailable, error_from_code
from service_kit.grpc.status import from_rpc_error, from_status, to_status

texts = st.text(max_size=30)
errors = st.builds(
    error_from_code,
    st.sampled_from(Code),
    st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True),
    texts,
    st.dictionaries(texts | st.sampled_from(["reason", "message", "self", "code"]), texts),
)


@given(errors)
def test_an_error_comes_back_as_it_was_sent(error: ServiceError) -> None:
    received = from_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))
    assert type(received) is type(error)
    assert received.code is error.code
    assert received.reason == error.reason
    assert received.message == str(received) == error.message
    assert received.metadata == error.metadata


@pytest.mark.parametrize("code", Code)
def test_every_code_is_that_of_grpc(code: Code) -> None:
    assert grpc.StatusCode[code.name].value[0] == code


def test_metadata_becomes_text() -> None:
    assert NotFound("GONE", "gone", product_id=7, available=None).metadata == {
        "product_id": "7",
        "available": "None",
    }


def test_a_status_without_a_reason_is_known_by_its_code() -> None:
    error = from_status(status_pb2.Status(code=Code.UNAVAILABLE, message="away"))
    assert isinstance(error, Unavailable)
    assert (error.reason, error.message) == ("UNAVAILABLE", "away")


def test_details_of_other_kinds_are_passed_over() -> None:
    status = status_pb2.Status(code=Code.NOT_FOUND, message="gone")
    status.details.add().Pack(error_details_pb2.RetryInfo())
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="GONE"))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="A SECOND ONE"))
    assert from_status(status).reason == "GONE"


def test_a_code_that_is_not_canonical_is_unknown() -> None:
    assert from_status(status_pb2.Status(code=77)).code is Code.UNKNOWN


@pytest.mark.parametrize("details", ["connection refused", None])
def test_a_failure_of_the_channel_itself_is_known_by_its_code(details: str | None) -> None:
    empty = grpc.aio.Metadata()
    lost = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, details)
    error = from_rpc_error(lost)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.message) == ("UNAVAILABLE", details or "UNAVAILABLE")
