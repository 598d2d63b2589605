"""Reaching image goals in unseen labs: the options, and the defaults of each system."""
