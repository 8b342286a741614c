"""RabbitMQ: which broker the system uses, and how to run one."""
