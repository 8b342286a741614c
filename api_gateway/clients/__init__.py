"""Clients of the services behind the gateway; they return dictionaries ready to serialise."""
