"""Policies: networks that act without search, and their training."""
