"""An environment in another Python: a child process, a block of shared memory, and small bounded messages."""
