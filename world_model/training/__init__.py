"""The training loop, its settings and monitors, and the training of critics."""
