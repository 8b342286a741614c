"""What a system costs after a million orders, and how a backlog drains."""
