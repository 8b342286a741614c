"""How fast orders and reads are, and what each component can do alone."""
