"""Training as a user runs it: logs, run folder, recorders, evaluation, checkpoints."""
