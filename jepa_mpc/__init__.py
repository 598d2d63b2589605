"""Model-predictive control for robots on JEPA world models.

    env = jepa_mpc.make_env("reach-v1", image_size=128)
    agent = jepa_mpc.load_agent(env)
    observation, _ = env.reset(seed=0)
    agent.reset(observation)
    for _ in range(env.budget):
        observation, *_ = env.step(agent.act(observation))

This folder holds what all packages share: records, protocols, shapes, seeds, errors, files and checkpoints. The
packages `encoders`, `world_model`, `planners`, `envs`, `trajectories` and `experiments` are its subpackages: an
installed wheel holds them inside, a source checkout keeps them beside this folder. Importing `jepa_mpc` loads none of
them; the functions below load them on use. If gymnasium is loaded, the tasks are registered with it:
`gymnasium.make("reach-v1")`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_mpc.episode import run_episode as run_episode
    from jepa_mpc.face.commands import collect as collect
    from jepa_mpc.face.commands import train as train
    from jepa_mpc.face.features import encode_cloud as encode_cloud
    from jepa_mpc.face.features import encode_image as encode_image
    from jepa_mpc.face.features import encode_sound as encode_sound
    from jepa_mpc.face.features import encode_video as encode_video
    from jepa_mpc.face.loading import load_agent as load_agent
    from jepa_mpc.face.loading import load_robot_agent as load_robot_agent
    from jepa_mpc.face.loading import load_world_model as load_world_model
    from jepa_mpc.face.loading import true_dynamics_agent as true_dynamics_agent
    from jepa_mpc.face.playing import evaluate as evaluate
    from jepa_mpc.face.playing import make_env as make_env
    from jepa_mpc.face.playing import open_log as open_log
    from jepa_mpc.face.search import plan as plan

__version__ = "0.1.0"

_PLACES = {
    "collect": "face.commands",
    "encode_cloud": "face.features",
    "encode_image": "face.features",
    "encode_sound": "face.features",
    "encode_video": "face.features",
    "evaluate": "face.playing",
    "load_agent": "face.loading",
    "load_robot_agent": "face.loading",
    "load_world_model": "face.loading",
    "make_env": "face.playing",
    "open_log": "face.playing",
    "plan": "face.search",
    "run_episode": "episode",
    "train": "face.commands",
    "true_dynamics_agent": "face.loading",
}

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "world_model" / "__init__.py").is_file() and (_ROOT / "pyproject.toml").is_file():
    __path__.append(str(_ROOT))  # a source checkout: `jepa_mpc.envs` is the folder envs/ at its root

if "gymnasium" in sys.modules:
    importlib.import_module("jepa_mpc.gym")


def __getattr__(name: str) -> Any:
    """Load a public function on first access."""
    if name not in _PLACES:
        raise AttributeError(f"module 'jepa_mpc' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jepa_mpc.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
