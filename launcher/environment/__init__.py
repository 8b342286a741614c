"""The environment variables that the services are started with: defaults, secrets, validation."""
