"""The only door from outside: REST and JWT in front, gRPC behind."""
