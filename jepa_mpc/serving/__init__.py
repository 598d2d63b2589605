"""A policy server: a planning agent behind a websocket, in openpi's protocol.

It only uses the agent interface; the command `jepa-mpc serve` assembles the agents.
"""
