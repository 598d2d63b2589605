"""Several commands in a row, resumable: `python experiments/workflow.py plan=pick out=runs/pick`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("workflow")
