"""Score a world model in any environment: `python experiments/evaluate.py task=gym:Reacher-v5 checkpoint=FOLDER`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("evaluate")
