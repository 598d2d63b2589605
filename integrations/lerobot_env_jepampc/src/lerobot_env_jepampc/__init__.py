"""The simulated labs of jepa-mpc as LeRobot environments: `--env.type=jepampc --env.task=reach-v1`."""

from __future__ import annotations

import sys

if sys.version_info < (3, 12):
    raise ImportError(f"lerobot_env_jepampc needs Python >= 3.12, as LeRobot does; this is {sys.version.split()[0]}")
try:
    import lerobot  # noqa: F401
except ImportError as error:
    raise ImportError('lerobot_env_jepampc needs LeRobot: pip install "lerobot>=0.6,<0.7"') from error

from lerobot_env_jepampc.configuration_jepampc import JepaMpcEnv
from lerobot_env_jepampc.lab_env import LabEnv

__all__ = ["JepaMpcEnv", "LabEnv"]
