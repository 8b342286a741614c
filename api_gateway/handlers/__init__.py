"""One function per route: validated request in, answer out."""
