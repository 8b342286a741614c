"""Errors to and from gRPC's rich status (https://google.aip.dev/193)."""

from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service_kit.errors import Code, ServiceError, error_from_code

DOMAIN = "ecommerce"


def to_status(error: ServiceError) -> status_pb2.Status:
    """The `google.rpc.Status` of an error, its reason in an ErrorInfo."""
    status = status_pb2.Status(code=error.code, message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    return status


def from_status(status: status_pb2.Status) -> ServiceError:
    """The error behind a status; the name of its code stands in for a missing reason."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    code = Code.from_number(status.code)
    return error_from_code(code, info.reason or code.name, status.message, dict(info.metadata))


def from_rpc_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """The error behind a failed call, whether a servicer or the channel raised it."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    if status is not None:
        return from_status(status)
    code = Code.from_number(error.code().value[0])
    return error_from_code(code, code.name, error.details() or code.name, {})
