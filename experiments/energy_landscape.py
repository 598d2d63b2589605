"""Energy of each action in a world model: `python experiments/energy_landscape.py checkpoint=runs/x/checkpoint`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("energy_landscape")
