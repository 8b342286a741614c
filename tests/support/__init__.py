"""Shared by all tests: ports, waiting, infrastructure, clients, the running system."""
