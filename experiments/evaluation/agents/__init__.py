"""The two-mode agent: behind a wall, in labs, and with one module removed at a time."""
