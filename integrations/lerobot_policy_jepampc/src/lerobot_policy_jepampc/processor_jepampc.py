"""What LeRobot does with batches before the policy and with actions after it: nothing is normalised."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors
from torch import Tensor

from lerobot_policy_jepampc.configuration_jepampc import JepaMpcConfig

Pipelines = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]


def make_jepampc_pre_post_processors(
    config: JepaMpcConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> Pipelines:
    """LeRobot's own steps, with the identity for each kind of feature: the world model scales images and actions."""
    return make_default_pre_post_processors(config, dataset_stats)
