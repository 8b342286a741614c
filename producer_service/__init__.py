"""Publishes events to RabbitMQ: declares the topology, and waits for the broker's confirms."""
