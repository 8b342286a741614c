"""Takes order events from the broker to inventory, and inventory's answer to the orders."""
