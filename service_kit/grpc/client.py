"""Long-lived channels to dependencies, and the one way to call through them."""

import json
from collections.abc import Sequence
from typing import TypeVar

import grpc

from service_kit import context
from service_kit.grpc.status import from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")

# Reconnecting starts after 0.1 s and pauses 1 s at most, so that a dependency is used again as
# soon as it returns; keep-alive detects a peer that hangs.
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)


def open_channel(address: str, service: str, idempotent: Sequence[str] = ()) -> grpc.aio.Channel:
    """A channel to `address` for the named service, balancing over its addresses.

    gRPC itself retries the `idempotent` methods on UNAVAILABLE, inside the call's deadline
    (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
    """
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if idempotent:
        config["methodConfig"] = [
            {
                "name": [{"service": service, "method": method} for method in idempotent],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    options = (*_OPTIONS, ("grpc.service_config", json.dumps(config)))
    return grpc.aio.insecure_channel(address, options=options)


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    timeout: float,  # noqa: ASYNC109
) -> Response:
    """Call with a deadline of `timeout` seconds, connecting included, in the current call context.

    Raises the ServiceError that the dependency returned, Unavailable if it cannot be reached, or
    DeadlineExceeded.
    """
    try:
        return await method(request, timeout=timeout, metadata=context.current().metadata())
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
