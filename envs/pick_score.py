"""What an episode of handling came to: stages reached, and what the gripper did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jepa_mpc.envs.pick import PickEnv

OFF_TABLE_M = 0.02
AT_GOAL_M = 0.05


@dataclass(kw_only=True)
class GripScore:
    """What the gripper did so far; each holds from the first step on at which it was true.

    Args:
        touched: A finger touched the object.
        closed: Both fingers pressed on it.
        lifted: The fingers carried it 2 cm above the table.
        lost: It was let go of after that, more than 5 cm beside its goal: opened in transit, or slipped.
    """

    touched: bool = False
    closed: bool = False
    lifted: bool = False
    lost: bool = False

    @property
    def kept(self) -> bool:
        """Whether it was lifted, and not lost."""
        return self.lifted and not self.lost

    def see(self, env: PickEnv) -> None:
        """Take note of the present moment."""
        felt = env.touch()
        beside_m = float(np.linalg.norm((env.object_m() - env.goal_m)[:2]))
        self.touched |= felt.touched
        self.closed |= felt.gripped
        self.lost |= self.lifted and not felt.gripped and beside_m > AT_GOAL_M
        self.lifted |= felt.held and env.height_m() > OFF_TABLE_M


@dataclass(kw_only=True)
class PickScore:
    """What came of an episode of `pick-v1`; `see` it after every step.

    A grasp and a reach count where the sub-goals' steps end. Where the final image alone is shown, they count at any
    step: lifted by the trial of 10 cm, and held within 5 cm beside the goal.
    """

    grasp: bool = False
    reach: bool = False
    place: bool = False
    grip: GripScore = field(default_factory=GripScore)

    def see(self, env: PickEnv, shown: str, *, ends: bool) -> None:
        """Take note of the step that was just carried out.

        Args:
            env: The task after it.
            shown: Name of the sub-goal that counted during it.
            ends: Whether it was that sub-goal's last.
        """
        self.grip.see(env)
        felt = env.touch()
        if env.protocol == "final":
            beside_m = float(np.linalg.norm((env.object_m() - env.goal_m)[:2]))
            self.grasp = self.grasp or (felt.gripped and env.grasped())
            self.reach = self.reach or (felt.held and beside_m < AT_GOAL_M)
        elif ends and shown == "grasp":
            self.grasp = env.grasped()
        elif ends and shown == "near":
            wanted = next(goal.sensors[3:6] for goal in env.sub_goals if goal.name == "near")
            self.reach = bool(felt.held and np.linalg.norm(env.object_m() - wanted) < AT_GOAL_M)
        self.place = env.success()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        facts = asdict(self)
        return {**facts, "grip": {**facts["grip"], "kept": self.grip.kept}}
