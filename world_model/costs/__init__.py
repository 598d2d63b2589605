"""Costs: step costs of predicted futures, constraints, and the critic."""
