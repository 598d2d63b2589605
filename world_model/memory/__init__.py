"""The agent's memory: the planner's window, the replay buffer, hindsight samples."""
