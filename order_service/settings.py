"""What order_service reads from its environment."""

from pydantic import Field

from service_kit.settings import DatabaseUrl, MetricsPort, Port, ServiceSettings, local_address


class Settings(ServiceSettings):
    """Where the service listens, its database, its dependencies, and its intervals."""

    order_service_port: Port = 50051
    order_database_url: DatabaseUrl
    user_service_port: Port = 50052
    user_service_addr: str = Field(default_factory=local_address("user_service_port"))
    inventory_service_port: Port = 50055
    inventory_service_addr: str = Field(default_factory=local_address("inventory_service_port"))
    producer_service_port: Port = 50054
    producer_service_addr: str = Field(default_factory=local_address("producer_service_port"))

    batch_max_items: int = Field(256, ge=1, le=1000)
    """Events in one call to the producer."""
    order_republish_seconds: float = Field(10.0, gt=0)
    """A new event is published for an order that inventory has not answered for this long."""
    outbox_retention_seconds: float = Field(3600.0, ge=0)
    """How long sent events are kept in the outbox."""

    order_service_metrics_port: MetricsPort = 0
    order_consistency_seconds: float = Field(5.0, ge=0)
    """Interval of the consistency checks that run with the service; 0 turns them off."""
    order_consistency_grace_seconds: float = Field(90.0, gt=0)
    """An unfinished order or event is late if a younger one was finished this long ago."""
