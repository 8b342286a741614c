"""Applies order events to stock and settles the orders with the result."""
