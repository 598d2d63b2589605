"""Networks that answer without search, and how they learn."""
