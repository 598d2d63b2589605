"""Simulated robots and labs: the only package that imports mujoco or dm_control.

    env = envs.make("reach-v1", image_size=96)
    task = envs.make_task("reach-v1")  # with true dynamics, cost, goal and baselines: ready for planning
    env = gymnasium.make("jepa_mpc.gym:reach-v1")

Importing this package is cheap and only selects MuJoCo's rendering backend; a task is imported when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jepa_mpc.envs.backend import choose_backend
from jepa_mpc.errors import choose

if TYPE_CHECKING:
    from gymnasium.vector import AsyncVectorEnv

    from jepa_mpc.envs.task import Task

choose_backend()  # must happen before mujoco is imported


class TaskClass:
    """A task's class, imported on use.

    Args:
        place: Module in this package and class in it, as "module:Class".
        **settings: Arguments of the class that define this task.
    """

    def __init__(self, place: str, **settings: Any) -> None:
        self.entry_point, self.settings = f"{__name__}.{place}", settings

    def __call__(self, **settings: Any) -> Any:
        """Make the task with further arguments of its class."""
        module, _, name = self.entry_point.partition(":")
        return getattr(import_module(module), name)(**self.settings, **settings)


ENVS: Mapping[str, TaskClass] = {
    "reach-v1": TaskClass("reach:ReachEnv"),
    "push-v1": TaskClass("push:PushEnv"),
    "pick-v1": TaskClass("pick:PickEnv"),
    "cart-pole-v1": TaskClass("cart_pole:CartPoleEnv"),
    "dmc-cartpole-balance-v1": TaskClass("dmc:DmcEnv", task="cartpole-balance"),
    "dmc-cartpole-swingup-v1": TaskClass("dmc:DmcEnv", task="cartpole-swingup"),
    "dmc-pendulum-swingup-v1": TaskClass("dmc:DmcEnv", task="pendulum-swingup"),
    "dmc-point-mass-easy-v1": TaskClass("dmc:DmcEnv", task="point-mass-easy"),
    "dmc-reacher-easy-v1": TaskClass("dmc:DmcEnv", task="reacher-easy"),
    "dmc-reacher-hard-v1": TaskClass("dmc:DmcEnv", task="reacher-hard"),
    "dmc-jaco-reach-site-v1": TaskClass("dmc:DmcEnv", task="jaco-reach-site"),
}
"""Name -> task."""

GYM = "gym:"
"""Prefix of a gymnasium id, in place of a name of `ENVS`."""


def make(name: str, **settings: Any) -> Any:
    """Build a task by name.

    Args:
        name: A name of `ENVS`, or "gym:" plus a gymnasium id (see `envs.gym.adapter.GymEnv`, and with `copies=`
            `envs.gym.vector.GymVector`).
        **settings: Arguments of the task's class.

    Raises:
        UnknownName: If there is no such task; lists the known ones.
    """
    if name.startswith(GYM):
        from jepa_mpc.envs.gym.adapter import GymEnv
        from jepa_mpc.envs.gym.vector import GymVector

        return (GymVector if "copies" in settings else GymEnv)(name.removeprefix(GYM), **settings)
    return choose(ENVS, name, "env")(**settings)


def make_task(name: str, *, num_threads: int | None = 1, dynamics: str | None = None, **settings: Any) -> Task:
    """Build a task with its true dynamics, cost and baselines; nothing is rendered unless cameras are named.

    Args:
        name: As in `make`.
        num_threads: CPU threads of the true dynamics; None for all available to this process.
        dynamics: "simulator" (MuJoCo on the CPU), "warp" (MuJoCo Warp) or "stepping" (gymnasium environments); by
            default chosen by the task.
        **settings: Arguments of the task's class.

    Raises:
        UnknownName: If there is no such task or dynamics; lists the known ones.
        MissingPackage: If the package of the dynamics is not installed.
    """
    from jepa_mpc.envs.task import task_of

    return task_of(name, make(name, **{"cameras": (), **settings}), num_threads=num_threads, dynamics=dynamics)


def register() -> None:
    """Register every task with gymnasium, so that `gymnasium.make("reach-v1")` works; idempotent."""
    import gymnasium

    for name, task in ENVS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=task.entry_point, kwargs=dict(task.settings))


def make_async(name: str, *, count: int, **settings: Any) -> AsyncVectorEnv:
    """Several copies of a task, each in its own process.

    The processes are spawned, not forked: a forked process would inherit OpenGL's state without its threads. A script
    that calls this needs the usual `if __name__ == "__main__"`.

    Args:
        name: A name of `ENVS`.
        count: Number of processes.
        **settings: Arguments of the task's class.

    Raises:
        UnknownName: If there is no such task.
    """
    from gymnasium.vector import AsyncVectorEnv

    return AsyncVectorEnv([partial(choose(ENVS, name, "env"), **settings)] * count, context="spawn")
