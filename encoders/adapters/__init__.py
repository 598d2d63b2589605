"""Released weights: locations, key names and loading."""
