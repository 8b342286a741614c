"""ProducerService over gRPC: decode, publish, encode."""

from typing import Any

from google.rpc import status_pb2
from grpc.aio import ServicerContext

from producer_service.operations import publish_events
from producer_service.publisher import OutgoingEvent, Publisher
from proto import producer_pb2 as pb
from proto.producer_pb2_grpc import ProducerServiceServicer
from service_kit.errors import ServiceError
from service_kit.grpc.status import to_status

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ProducerService"].full_name


class ProducerServicer(ProducerServiceServicer):
    """Publishes the events of a call as one batch."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def PublishEvents(
        self, request: pb.PublishEventsRequest, context: ServicerContext[Any, Any]
    ) -> pb.PublishEventsResponse:
        events = [
            OutgoingEvent(each.id, each.type, each.body, each.traceparent, each.request_id)
            for each in request.events
        ]
        errors = await publish_events(self._publisher, events)
        return pb.PublishEventsResponse(
            results=[
                pb.PublishResult(id=event.id, status=_status(error))
                for event, error in zip(events, errors, strict=True)
            ]
        )


def _status(error: ServiceError | None) -> status_pb2.Status:
    return status_pb2.Status() if error is None else to_status(error)
