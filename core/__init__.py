"""The words that every package shares: records, interfaces, shapes, seeds, errors, checkpoints."""
