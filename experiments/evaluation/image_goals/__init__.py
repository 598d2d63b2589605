"""Reaching image goals in unseen labs: the options, and what each system brings."""
