"""ACT-JEPA against behaviour cloning: `python experiments/bench_act_jepa.py seeds=[0] out=runs/act_jepa`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_act_jepa")
