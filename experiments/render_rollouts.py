"""Videos of planners side by side: `python experiments/render_rollouts.py task=reach planners=[cem_short,slope]`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("render_rollouts")
