"""Features of videos, images, clouds or sounds: `python experiments/features.py film.mp4 encoder=NAME to=FILE`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("features")
