"""Encoders of clouds and sounds at jobs of the robot: `python experiments/bench_sensors.py sensor=clouds`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("bench_sensors")
