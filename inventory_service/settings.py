"""What inventory_service reads from its environment."""

from service_kit.settings import DatabaseUrl, Port, ServiceSettings


class Settings(ServiceSettings):
    """Where the service listens and where its database is."""

    inventory_service_port: Port = 50055
    inventory_database_url: DatabaseUrl
