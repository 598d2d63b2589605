"""Train a world model on a log: `python experiments/train.py data=logs/reach out=runs/reach seed=0`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("train")
