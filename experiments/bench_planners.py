"""Planners on true dynamics: `python experiments/bench_planners.py tasks=[reach] planners=[cem,icem]`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_planners")
