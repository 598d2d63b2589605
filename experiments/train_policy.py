"""Train a policy for a frozen world model: `python experiments/train_policy.py data=logs/reach out=runs/policy`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("train_policy")
