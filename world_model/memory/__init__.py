"""What the agent remembers: the planner's window, the replay buffer, hindsight samples."""
