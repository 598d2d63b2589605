"""Import and export of foreign weights: a name table per family."""
