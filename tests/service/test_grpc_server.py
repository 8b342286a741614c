"""How a gRPC server logs and maps the errors that its servicers raise."""

from typing import Any

import grpc
import pytest
import structlog

from service_kit.errors import Code, Internal, NotFound, ServiceError, Unavailable
from service_kit.grpc.client import open_channel
from service_kit.grpc.server import serve_grpc
from tests.support.services import ask
from tests.support.waiting import free_port

SERVICE = "test.Raising"


@pytest.mark.parametrize(
    ("error", "code", "levels"),
    [
        (RuntimeError("a bug"), Code.INTERNAL, ["error"]),
        (Internal("INTERNAL", "a bug in a dependency"), Code.INTERNAL, ["warning"]),
        (Unavailable("UNAVAILABLE", "gone"), Code.UNAVAILABLE, ["warning"]),
        (NotFound("USER_NOT_FOUND", "none"), Code.NOT_FOUND, []),
    ],
    ids=repr,
)
async def test_a_failure_is_logged_once_and_a_refusal_is_not_logged(
    error: Exception, code: Code, levels: list[str]
) -> None:
    async def raises(_request: bytes, _context: Any) -> bytes:
        raise error

    def add(server: grpc.aio.Server) -> None:
        methods: dict[str, Any] = {"Raise": grpc.unary_unary_rpc_method_handler(raises)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))

    address = f"127.0.0.1:{free_port()}"
    async with serve_grpc(address, {SERVICE: add}), open_channel(address, SERVICE) as channel:
        with structlog.testing.capture_logs() as logged, pytest.raises(ServiceError) as raised:
            await ask(channel.unary_unary(f"/{SERVICE}/Raise"), b"")
    assert raised.value.code is code
    assert [line["log_level"] for line in logged if line["event"] == "call failed"] == levels
