"""Agents by name of their method, played in labs; probes of frozen features."""
