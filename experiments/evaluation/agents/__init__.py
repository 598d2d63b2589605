"""The agent of two modes: behind a wall, in labs, and with one module taken away at a time."""
