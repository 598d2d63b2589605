"""Robot logs: the episode schema, file formats, windows, statistics, and motion worth recording."""
