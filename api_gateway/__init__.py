"""The public entry point: REST and JWT for clients, gRPC to the services."""
