"""Training losses: the interface between the training loop and a system."""
