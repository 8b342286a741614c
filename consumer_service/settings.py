"""What consumer_service reads from its environment."""

from pydantic import Field

from service_kit.settings import DEFAULT_BROKER_URL, BrokerUrl, Port, ServiceSettings, local_address


class Settings(ServiceSettings):
    """Where the broker and the dependencies are, and how large a batch may be."""

    consumer_service_port: Port = 50056
    """Serves gRPC health only."""
    rabbitmq_url: BrokerUrl = DEFAULT_BROKER_URL
    inventory_service_port: Port = 50055
    inventory_service_addr: str = Field(default_factory=local_address("inventory_service_port"))
    order_service_port: Port = 50051
    order_service_addr: str = Field(default_factory=local_address("order_service_port"))

    batch_max_items: int = Field(250, ge=1, le=1000)
    """Events handled together; twice as many are fetched from the queue ahead of handling."""
