"""The services of the shop, and the connections between them and their stores."""

SERVICES = (
    "user_service",
    "inventory_service",
    "producer_service",
    "order_service",
    "consumer_service",
    "api_gateway",
)
LINKS = (
    ("api_gateway", "order_service"),
    ("order_service", "user_service"),
    ("order_service", "inventory_service"),
    ("order_service", "producer_service"),
    ("producer_service", "broker"),
    ("consumer_service", "broker"),
    ("consumer_service", "inventory_service"),
    ("consumer_service", "order_service"),
    ("order_service", "database"),
    ("inventory_service", "database"),
    ("user_service", "database"),
)
"""Client and server of each connection that can fail."""
