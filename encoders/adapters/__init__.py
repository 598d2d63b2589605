"""Released weights in: where they lie, how they are spelled, and nothing more."""
