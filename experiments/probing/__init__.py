"""Reading the hand's position out of frozen features: what a probe is made of."""
