"""Logs and metrics of a running service."""
