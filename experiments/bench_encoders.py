"""Camera encoders on one robot task, beside controls: `python experiments/bench_encoders.py out=runs/encoders`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_encoders")
