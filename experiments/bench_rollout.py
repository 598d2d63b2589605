"""The speed-up of V-JEPA 2-AC rollouts by a key-value cache: `python experiments/bench_rollout.py`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_rollout")
