"""Optical flow of MC-JEPA: `python experiments/bench_flow.py out=runs/flow "seeds=[0,1,2]"`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_flow")
