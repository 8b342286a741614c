"""The standard services that every gRPC server offers: health and reflection."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SECONDS = 10.0


async def health(address: str, service: str = "") -> str:
    """The name of the status that the server answers for `service`."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=SECONDS
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def reflected(address: str) -> set[str]:
    """The names of the services that the server tells about itself."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([request]), timeout=SECONDS):
            return {service.name for service in answer.list_services_response.service}
    raise AssertionError("no answer")


async def described(address: str, symbol: str) -> bool:
    """Whether the server describes the symbol, as grpcurl and Postman need it."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        async for answer in stub.ServerReflectionInfo(iter([request]), timeout=SECONDS):
            return bool(answer.file_descriptor_response.file_descriptor_proto)
    raise AssertionError("no answer")
