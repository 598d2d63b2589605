"""Handling objects on true states: agents and controls, episodes and their scores, and the headroom table."""
