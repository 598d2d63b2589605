"""Runs of commands: their folders, where their figures come from, their worker processes."""
