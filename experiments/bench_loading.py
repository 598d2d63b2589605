"""How fast logs are ingested and clips are read: `python experiments/bench_loading.py`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_loading")
