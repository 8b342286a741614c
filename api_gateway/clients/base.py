"""What the clients of all services share."""

from collections.abc import Sequence

from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_kit.errors import ServiceError
from service_kit.grpc.client import call, open_channel

CALL_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 1.0


class ServiceClient:
    """A client of the gRPC service `name`; `idempotent` methods are retried while unavailable."""

    def __init__(
        self, address: str, file: FileDescriptor, name: str, idempotent: Sequence[str]
    ) -> None:
        service = file.services_by_name[name].full_name
        self._channel = open_channel(address, service, idempotent)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def is_serving(self) -> bool:
        """Whether its health check returns SERVING within HEALTH_CHECK_SECONDS."""
        try:
            response = await call(
                self._health.Check, health_pb2.HealthCheckRequest(), timeout=HEALTH_CHECK_SECONDS
            )
        except ServiceError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
