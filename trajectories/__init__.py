"""Robot logs: the episode schema, file formats, windows for training, statistics, and motion that is worth recording."""
