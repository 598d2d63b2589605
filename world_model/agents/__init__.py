"""Agents: reset(goal), act(observation)."""
