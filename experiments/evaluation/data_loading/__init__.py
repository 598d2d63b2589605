"""How fast logs are ingested and clips are read."""
