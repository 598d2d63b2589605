"""Model-predictive control for robots on JEPA world models.

What stands here is the vocabulary that all packages share: records, protocols, shapes, seeds, errors, files and
checkpoints. The packages `encoders`, `world_model`, `planners`, `envs`, `trajectories` and `experiments` are its
subpackages: an installed wheel holds them inside, a source checkout keeps them beside this folder.
"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "world_model" / "__init__.py").is_file() and (_ROOT / "pyproject.toml").is_file():
    __path__.append(str(_ROOT))  # a source checkout: `jepa_mpc.envs` is the folder envs/ at its root
