"""Hand positions in frozen features: `python experiments/probe.py checkpoint=runs/vjepa2_small/checkpoint`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("probe")
