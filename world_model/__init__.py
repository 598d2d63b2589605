"""World models: their parts, the agents that plan with them, training and checkpoints."""
