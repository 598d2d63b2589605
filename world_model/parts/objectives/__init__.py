"""Training losses: all that the training loop knows of a system."""
