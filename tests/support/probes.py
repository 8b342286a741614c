"""Clients of the standard gRPC services: health and reflection."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SECONDS = 10.0


async def health(address: str, service: str = "") -> str:
    """The name of the health status of `service`."""
    async with grpc.aio.insecure_channel(address) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=SECONDS
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


async def reflected(address: str) -> set[str]:
    """The names of the services that the server lists by reflection."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for response in stub.ServerReflectionInfo(iter([request]), timeout=SECONDS):
            return {service.name for service in response.list_services_response.service}
    raise AssertionError("no response")


async def described(address: str, symbol: str) -> bool:
    """Whether the server describes the symbol by reflection, as grpcurl and Postman need it."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        async for response in stub.ServerReflectionInfo(iter([request]), timeout=SECONDS):
            return bool(response.file_descriptor_response.file_descriptor_proto)
    raise AssertionError("no response")
