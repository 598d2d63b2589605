"""A policy server: a planning agent behind a websocket, in the protocol that openpi's clients speak.

It knows agents by their interface alone; the command `jepa-mpc serve` puts the agents together.
"""
