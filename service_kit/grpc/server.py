"""The gRPC server of every service: health, reflection, errors, deadlines, logs, drain."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service_kit.context import REQUEST_ID, TRACEPARENT, CallContext, bound
from service_kit.errors import Code, DeadlineExceeded, Internal, PortUnavailable, ServiceError
from service_kit.grpc.status import to_status
from service_kit.observability.metrics import rpc_metrics

log = structlog.get_logger(__name__)

MAX_SECONDS = 35.0
"""No call runs longer, whatever deadline its client sets; some wait 30 s on purpose."""

DRAIN_SECONDS = 8.0
"""Time for calls in progress to finish once the server stops."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Behind a load balancer's name clients find new replicas only when they reconnect.
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
)


@asynccontextmanager
async def serve_grpc(
    address: str, services: dict[str, Callable[[grpc.aio.Server], None]]
) -> AsyncIterator[grpc.aio.Server]:
    """Serve `services` (full name -> registers its servicer) inside the block, then drain.

    Health is SERVING inside the block, for "" and for each name.
    """
    server = grpc.aio.server(interceptors=[_CallInterceptor()], options=_OPTIONS)
    for add in services.values():
        add(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (*services, health.SERVICE_NAME)
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortUnavailable(f"cannot listen on {address}: is the port in use?") from error
    await server.start()
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("serving", address=address)
    try:
        yield server
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(DRAIN_SECONDS)


INTERNAL_ERROR = Internal("INTERNAL", "internal error")

Handler = Callable[[Any, Any], Any]


class _CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs each unary call in its call context and maps its errors to gRPC statuses."""

    def __init__(self) -> None:
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], "Awaitable[grpc.RpcMethodHandler[Any, Any] | None]"
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            # Streams (health watch, reflection) and unknown methods pass unchanged.
            if handler is None or handler.unary_unary is None or method.startswith("/grpc."):
                return handler
            self._wrapped[method] = grpc.unary_unary_rpc_method_handler(
                _wrap(method, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return self._wrapped[method]


def _wrap(method: str, handle: Handler) -> Handler:
    seconds, count_failure = rpc_metrics(method)

    async def handle_call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        call_context = CallContext(
            str(metadata.get(REQUEST_ID, "")), str(metadata.get(TRACEPARENT, ""))
        )
        started = time.perf_counter()
        with bound(call_context):
            try:
                async with asyncio.timeout(MAX_SECONDS):
                    return await handle(request, context)
            except ServiceError as refusal:
                error = refusal
            except TimeoutError:
                error = DeadlineExceeded("DEADLINE_EXCEEDED", f"{method} took too long")
            except Exception:
                count_failure(Code.INTERNAL.name)
                log.exception("call failed", method=method)
                return await context.abort_with_status(_AbortStatus.from_error(INTERNAL_ERROR))
            finally:
                seconds.observe(time.perf_counter() - started)
            count_failure(error.code.name)
            if error.code in (Code.INTERNAL, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                log.warning("call failed", method=method, reason=error.reason, error=error.message)
            return await context.abort_with_status(_AbortStatus.from_error(error))

    return handle_call


class _AbortStatus(grpc.Status):
    """The argument of `abort_with_status`: code, details, and the rich status as metadata."""

    def __init__(self, code: grpc.StatusCode, details: str, status: bytes) -> None:
        self.code = code
        self.details = details
        self.trailing_metadata = (("grpc-status-details-bin", status),)

    @classmethod
    def from_error(cls, error: ServiceError) -> "_AbortStatus":
        code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
        return cls(code, error.message, to_status(error).SerializeToString())
