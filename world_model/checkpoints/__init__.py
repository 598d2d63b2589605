"""Checkpoints: from a folder of weights to the parts of an agent."""
