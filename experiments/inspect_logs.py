"""Inspect a robot log of any known format: `python experiments/inspect_logs.py path=logs/reach`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("inspect_logs")
