"""The commands: one file each, run by its script in experiments/ and by `jepa-mpc`."""
