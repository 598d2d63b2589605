"""Reach image goals in labs that no training log contained: `python experiments/zero_shot_reach.py`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("zero_shot_reach")
