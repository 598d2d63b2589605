"""From a folder of weights to something that acts."""
