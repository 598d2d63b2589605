"""Ablations of the two-mode agent, one module at a time: `python experiments/agent_ablations.py ablations=quick`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("agent_ablations")
