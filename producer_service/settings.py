"""What producer_service reads from its environment."""

from service_kit.settings import DEFAULT_BROKER_URL, BrokerUrl, Port, ServiceSettings


class Settings(ServiceSettings):
    """Where the service listens and where the broker is."""

    producer_service_port: Port = 50054
    rabbitmq_url: BrokerUrl = DEFAULT_BROKER_URL
