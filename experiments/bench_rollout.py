"""What kept keys and values save in a rollout of V-JEPA 2-AC: `python experiments/bench_rollout.py`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_rollout")
