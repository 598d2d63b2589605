"""Registers every task with gymnasium when imported: `gymnasium.make("jepa_mpc.gym:reach-v1")`.

Gymnasium imports the part before the colon. After `import gymnasium, jepa_mpc` the task name alone is enough.
"""

from __future__ import annotations

from jepa_mpc.envs import register

register()
