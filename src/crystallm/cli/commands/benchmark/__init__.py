"""`crystallm benchmark`."""
