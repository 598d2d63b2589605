"""Turn a log of any known format into another: `python experiments/convert.py source=logs/reach to=logs/lerobot`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("convert")
