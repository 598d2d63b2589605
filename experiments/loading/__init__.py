"""How fast logs are ingested and clips are read: what bench_loading.py measures."""
