"""Causal-JEPA with several objects: `python experiments/bench_objects.py out=runs/objects "seeds=[0,1,2]"`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_objects")
