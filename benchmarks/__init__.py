"""What the system does under load, measured on a system of its own."""
