"""The words that every package shares: records, interfaces, shapes, seeds, errors, files, checkpoints."""

__version__ = "0.1.0"
