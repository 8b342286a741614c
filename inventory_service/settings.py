"""What inventory_service reads from its environment."""

from pydantic import Field

from service_kit.settings import DatabaseUrl, MetricsPort, Port, ServiceSettings


class Settings(ServiceSettings):
    """Where the service listens, its database, and how often it compares stock with the ledger."""

    inventory_service_port: Port = 50055
    inventory_database_url: DatabaseUrl

    inventory_service_metrics_port: MetricsPort = 0
    inventory_consistency_seconds: float = Field(2.0, ge=0)
    """Pause between two runs of the consistency checks; 0 turns them off."""
