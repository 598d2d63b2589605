"""The possible gain from predicting an object's motion: `python experiments/headroom.py tasks=[push,final]`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("headroom")
