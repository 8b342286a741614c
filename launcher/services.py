"""The services, and the order in which the programs of the system start."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """A service: its Python package, its default ports and the variables that change them."""

    name: str
    default_port: int
    has_database: bool = False
    metrics_port: int = 0
    """Default port of its metrics page; 0: it has none. Another port is used if it is taken."""

    @property
    def metrics_variable(self) -> str:
        """The environment variable with the port of its metrics page."""
        return f"{self.name.upper()}_METRICS_PORT"

    @property
    def port_variable(self) -> str:
        """The environment variable with the port it listens on."""
        return f"{self.name.upper()}_PORT"

    @property
    def address_variable(self) -> str:
        """The environment variable with the address at which other services reach it."""
        return f"{self.name.upper()}_ADDR"

    @property
    def database_variable(self) -> str:
        """The environment variable with the URL of its database."""
        return f"{self.name.removesuffix('_service').upper()}_DATABASE_URL"


CONSUMER = Service("consumer_service", 50056)
GATEWAY = Service("api_gateway", 8080)
SERVICES = (
    Service("user_service", 50052, has_database=True),
    Service("inventory_service", 50055, has_database=True, metrics_port=50065),
    Service("producer_service", 50054),
    Service("order_service", 50051, has_database=True, metrics_port=50061),
    CONSUMER,
    GATEWAY,
)
POSTGRES = "postgres"
RABBITMQ = "rabbitmq"
START_ORDER = (POSTGRES, RABBITMQ, *(service.name for service in SERVICES))
