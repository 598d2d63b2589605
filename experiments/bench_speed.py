"""How fast learned dynamics plan: `python experiments/bench_speed.py`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_speed")
