"""World models: what they are made of, the agents that plan with them, and how both are trained and kept."""
