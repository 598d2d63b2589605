"""Make a trained world model ready to ship: weights, and an album of logged frames that shows what it imagines."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("publish")
