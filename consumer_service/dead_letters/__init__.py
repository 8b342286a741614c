"""Messages that can never be handled: stored with their reason, listed and redriven."""
