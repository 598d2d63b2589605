"""What the agent of two modes is tried out on: a wall, labs, and one module taken away at a time."""
