"""Foreign weights in and out: a name table per family, nothing more."""
