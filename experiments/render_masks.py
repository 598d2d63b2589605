"""The masks of a masked system: `python experiments/render_masks.py system=ijepa_small data=LOG`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("render_masks")
