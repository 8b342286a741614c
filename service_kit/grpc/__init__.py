"""gRPC: long-lived channels, the server of every service, and errors as canonical statuses."""
