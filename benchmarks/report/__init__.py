"""Results as tables and pictures, on the terminal and in docs/performance.md."""
