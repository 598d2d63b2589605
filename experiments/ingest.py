"""Turn a log of any format into a cache: `python experiments/ingest.py path=logs/lerobot image_size=64 workers=2`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("ingest")
