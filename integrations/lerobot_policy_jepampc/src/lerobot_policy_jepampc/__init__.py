"""Model-predictive control on JEPA world models as a LeRobot policy: `--policy.type=jepampc`."""

from __future__ import annotations

import sys

if sys.version_info < (3, 12):
    raise ImportError(f"lerobot_policy_jepampc needs Python >= 3.12, as LeRobot does; this is {sys.version.split()[0]}")
try:
    import lerobot  # noqa: F401
except ImportError as error:
    raise ImportError('lerobot_policy_jepampc needs LeRobot: pip install "lerobot[dataset]>=0.6,<0.7"') from error

from lerobot_policy_jepampc.configuration_jepampc import JepaMpcConfig
from lerobot_policy_jepampc.modeling_jepampc import JepaMpcPolicy
from lerobot_policy_jepampc.processor_jepampc import make_jepampc_pre_post_processors

__all__ = ["JepaMpcConfig", "JepaMpcPolicy", "make_jepampc_pre_post_processors"]
