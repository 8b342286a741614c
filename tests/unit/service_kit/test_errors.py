"""Errors, and their round trip through gRPC's rich status."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import (
    TRANSIENT_CODES,
    Aborted,
    Code,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    error_from_code,
)
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
def test_an_error_is_received_as_it_was_sent(error: ServiceError) -> None:
    received = from_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))
    assert type(received) is type(error)
    assert received.code is error.code
    assert received.reason == error.reason
    assert received.message == str(received) == error.message
    assert received.metadata == error.metadata


@pytest.mark.parametrize("code", Code)
def test_every_code_has_the_number_of_grpc(code: Code) -> None:
    assert grpc.StatusCode[code.name].value[0] == code


@pytest.mark.parametrize("cls", [Aborted, DeadlineExceeded, ResourceExhausted, Unavailable])
def test_a_failure_that_a_retry_may_cure_is_transient(cls: type[ServiceError]) -> None:
    assert cls.code in TRANSIENT_CODES


@pytest.mark.parametrize(
    "code",
    [
        Code.UNKNOWN,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.DATA_LOSS,
        Code.UNAUTHENTICATED,
    ],
)
def test_a_failure_that_a_retry_repeats_is_not_transient(code: Code) -> None:
    assert code not in TRANSIENT_CODES


def test_metadata_becomes_text() -> None:
    assert NotFound("GONE", "gone", product_id=7, available=None).metadata == {
        "product_id": "7",
        "available": "None",
    }


def test_a_status_without_a_reason_has_the_name_of_its_code() -> None:
    error = from_status(status_pb2.Status(code=Code.UNAVAILABLE, message="gone"))
    assert isinstance(error, Unavailable)
    assert (error.reason, error.message) == ("UNAVAILABLE", "gone")


def test_details_of_other_types_are_ignored() -> None:
    status = status_pb2.Status(code=Code.NOT_FOUND, message="gone")
    status.details.add().Pack(error_details_pb2.RetryInfo())
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="GONE"))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="A SECOND ONE"))
    assert from_status(status).reason == "GONE"


def test_a_code_that_is_not_canonical_is_unknown() -> None:
    assert from_status(status_pb2.Status(code=77)).code is Code.UNKNOWN


@pytest.mark.parametrize("details", ["connection refused", None])
def test_a_failure_of_the_channel_itself_has_the_name_of_its_code(details: str | None) -> None:
    empty = grpc.aio.Metadata()
    lost = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, details)
    error = from_rpc_error(lost)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.message) == ("UNAVAILABLE", details or "UNAVAILABLE")
