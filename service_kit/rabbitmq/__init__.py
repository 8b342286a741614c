"""RabbitMQ: connections that are kept, declared topologies, publishing and consuming in batches."""
