"""What inventory_service reads from its environment."""

from pydantic import Field

from service_kit.settings import DatabaseUrl, MetricsPort, Port, ServiceSettings


class Settings(ServiceSettings):
    """Where the service listens, where its database is, and how often it is audited."""

    inventory_service_port: Port = 50055
    inventory_database_url: DatabaseUrl

    inventory_service_metrics_port: MetricsPort = 0
    inventory_audit_seconds: float = Field(2.0, ge=0)
    """Pause between two looks of the running audit; 0 means that it does not run."""
