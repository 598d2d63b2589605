"""Training losses: the only thing that the training loop knows of a system."""
