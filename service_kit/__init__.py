"""How a service runs: settings, errors, gRPC, PostgreSQL, RabbitMQ, batching, logs, lifecycle.

Knows nothing about the shop.
"""
