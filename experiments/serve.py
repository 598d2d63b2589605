"""Serve a planning agent: `python experiments/serve.py checkpoint=reach_wide goal=[left.png,right.png]`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("serve")
