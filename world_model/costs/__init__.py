"""What the agent wants: step costs of imagined futures, constraints, and the critic."""
