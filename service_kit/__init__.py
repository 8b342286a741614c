"""How a service runs: settings, errors, gRPC, database, messaging, batching, logs, lifecycle.

Knows nothing about the shop.
"""
