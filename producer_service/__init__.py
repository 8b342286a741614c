"""The only way of events to the broker: declares the topology and publishes with confirms."""
