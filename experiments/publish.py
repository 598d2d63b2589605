"""Prepare a trained world model for release: weights, and an album of logged frames that shows its rollouts."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("publish")
