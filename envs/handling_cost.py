"""Stage costs of manipulation, from sensors of hand and object (and its upright axis, and the grip).

While the object is not at its goal, the hand must touch it: `attending` pulls the hand to the object first and to its
own goal afterwards. `grip` counts only where the hand is at its goal, so that the gripper closes there and not before.
"""

from __future__ import annotations

from torch import Tensor

from jepa_mpc.envs.costs import Stage, apart, weighted

OBJECT_WEIGHT, HAND_WEIGHT, UPRIGHT_WEIGHT, GRIP_WEIGHT = 2.0, 0.5, 0.5, 1.0
AT_GOAL_M = 0.04  # within it, the hand's own goal starts to count
GATE_M = 0.03


def short_of_goal(near_m: float) -> Stage:
    """Distance (m) of the object to its goal beyond `near_m`: nearer, it is there.

    Raises:
        ValueError: If `near_m` is negative.
    """
    if not near_m >= 0:
        raise ValueError(f"need near_m >= 0, got {near_m}")
    whole = apart((3, 4, 5))
    return lambda now, goal: (whole(now, goal) - near_m).clamp(min=0.0)


def attending(short: Stage) -> Stage:
    """Distance (m) of the hand to the object and to its own goal, weighted by m and 1 - m.

    m = min(1, distance of the object to its goal / 4 cm)

    Args:
        short: The distance of the object to its goal.
    """

    def stage(now: Tensor, goal: Tensor) -> Tensor:
        from_object, from_goal = _length(now[..., 0:3] - now[..., 3:6]), _length(now[..., 0:3] - goal[..., 0:3])
        matters = (short(now, goal) / AT_GOAL_M).clamp(max=1.0)
        return matters * from_object + (1.0 - matters) * from_goal

    return stage


def upright(now: Tensor, goal: Tensor) -> Tensor:
    """Deviation of the object's axis from the goal's: 1 - cos, in [0, 2]."""
    return 1.0 - (now[..., 6:9] * goal[..., 6:9]).sum(dim=-1)


def grip(now: Tensor, goal: Tensor) -> Tensor:
    """Difference of the grip (m), times exp(-(distance of the hand to its goal / 3 cm)^2)."""
    gate = (-((now[..., 0:3] - goal[..., 0:3]).square().sum(dim=-1)) / GATE_M**2).exp()
    return gate * (now[..., 9] - goal[..., 9]).abs()


def moving(*, near_m: float = 0.0) -> Stage:
    """The object to its goal, and the hand at the object until then.

    Args:
        near_m: How far from its goal the object counts as there. What reads the object errs, and without such a margin
            its error makes an agent handle an object again that is there.

    Raises:
        ValueError: If `near_m` is negative.
    """
    short = short_of_goal(near_m)
    return weighted((OBJECT_WEIGHT, short), (HAND_WEIGHT, attending(short)))


def handling(*, near_m: float = 0.0) -> Stage:
    """`moving`, the object upright, and the grip as at the goal."""
    return weighted((1.0, moving(near_m=near_m)), (UPRIGHT_WEIGHT, upright), (GRIP_WEIGHT, grip))


def _length(vector: Tensor) -> Tensor:
    return vector.square().sum(dim=-1).add(1e-12).sqrt()
