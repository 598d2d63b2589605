"""Pick, carry and place towards image goals, in labs that no training log contained."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("zero_shot_pick")
