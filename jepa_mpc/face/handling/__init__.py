"""Picking and pushing: agents that plan on true states or from pictures, their controls, and films of them."""
