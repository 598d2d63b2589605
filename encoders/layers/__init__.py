"""Shared Transformer parts: attention, blocks, positional embeddings, weight initialisation."""
