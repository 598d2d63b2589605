"""The reaching task for a world model: its robot, cameras and image size."""

from __future__ import annotations

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.envs.robots import DEFAULT
from jepa_mpc.world_model.dynamics.model import Interface


def robot_of(interface: Interface) -> str:
    """Name of the arm that a world model was trained for (`envs.robots.ROBOTS`); the default if it has none."""
    return interface.embodiment or DEFAULT


def reach_env(interface: Interface, *, budget: int, image_size: int | None = None) -> ReachEnv:
    """The environment that a world model can act in.

    Args:
        interface: Of the world model.
        budget: Steps of an episode.
        image_size: Side of the images (px); by default the world model's.

    Raises:
        UnknownName: If there is no such arm; lists the known ones.
    """
    return ReachEnv(
        robot=robot_of(interface),
        cameras=interface.cameras,
        image_size=image_size or interface.image_size,
        budget=budget,
    )
