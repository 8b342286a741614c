"""Messages that can never be handled: put aside with their reason, shown, and given back."""
