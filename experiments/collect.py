"""Record reward-free motion in many labs: `python experiments/collect.py out=logs/reach labs=400`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("collect")
