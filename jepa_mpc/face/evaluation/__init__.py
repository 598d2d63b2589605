"""Agents by method name, episodes in labs, and probes of frozen features."""
