"""Runs of commands: folders, provenance, worker processes."""
