"""One function per operation: validated request in, response out."""
