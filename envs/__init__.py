"""Simulated robots and labs: everything that imports mujoco or dm_control.

    env = envs.make("reach-v1", image_size=96)
    task = envs.make_task("reach-v1")  # with true dynamics, cost, goal and baselines: ready to plan in
    env = gymnasium.make("jepa_mpc.gym:reach-v1")

Importing this package is cheap and only chooses how MuJoCo shall draw; a task is imported when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jepa_mpc.envs.backend import choose_backend
from jepa_mpc.errors import choose

if TYPE_CHECKING:
    from gymnasium.vector import AsyncVectorEnv

    from jepa_mpc.envs.cart_pole import CartPoleEnv
    from jepa_mpc.envs.dmc import DmcEnv
    from jepa_mpc.envs.pick import PickEnv
    from jepa_mpc.envs.push import PushEnv
    from jepa_mpc.envs.reach import ReachEnv
    from jepa_mpc.envs.task import Task

choose_backend()  # must happen before mujoco is imported


def reach_v1(**settings: Any) -> ReachEnv:
    """Bring the hand to where a goal image shows it (see `envs.reach.ReachEnv`)."""
    from jepa_mpc.envs.reach import ReachEnv

    return ReachEnv(**settings)


def push_v1(**settings: Any) -> PushEnv:
    """Push a block to where a goal image shows it (see `envs.push.PushEnv`)."""
    from jepa_mpc.envs.push import PushEnv

    return PushEnv(**settings)


def pick_v1(**settings: Any) -> PickEnv:
    """Pick an object up and place it where goal images show it (see `envs.pick.PickEnv`)."""
    from jepa_mpc.envs.pick import PickEnv

    return PickEnv(**settings)


def cart_pole_v1(**settings: Any) -> CartPoleEnv:
    """Swing a pole up and hold it (see `envs.cart_pole.CartPoleEnv`)."""
    from jepa_mpc.envs.cart_pole import CartPoleEnv

    return CartPoleEnv(**settings)


def dmc_v1(*, task: str, **settings: Any) -> DmcEnv:
    """A task of dm_control (see `envs.dmc.DmcEnv`)."""
    from jepa_mpc.envs.dmc import DmcEnv

    return DmcEnv(task=task, **settings)


ENVS: Mapping[str, Callable[..., Any]] = {
    "reach-v1": reach_v1,
    "push-v1": push_v1,
    "pick-v1": pick_v1,
    "cart-pole-v1": cart_pole_v1,
    "dmc-cartpole-balance-v1": partial(dmc_v1, task="cartpole-balance"),
    "dmc-cartpole-swingup-v1": partial(dmc_v1, task="cartpole-swingup"),
    "dmc-pendulum-swingup-v1": partial(dmc_v1, task="pendulum-swingup"),
    "dmc-point-mass-easy-v1": partial(dmc_v1, task="point-mass-easy"),
    "dmc-reacher-easy-v1": partial(dmc_v1, task="reacher-easy"),
    "dmc-reacher-hard-v1": partial(dmc_v1, task="reacher-hard"),
    "dmc-jaco-reach-site-v1": partial(dmc_v1, task="jaco-reach-site"),
}


GYM = "gym:"
"""Before an id of gymnasium, in place of a name of `ENVS`."""


def make(name: str, **settings: Any) -> Any:
    """Build a task by name.

    Args:
        name: A name of `ENVS`, or "gym:" and an id of gymnasium (see `envs.gym.adapter.GymEnv`).
        **settings: Arguments of the task's class.

    Raises:
        UnknownName: If there is no such task; lists what exists.
    """
    if name.startswith(GYM):
        from jepa_mpc.envs.gym.adapter import GymEnv

        return GymEnv(name.removeprefix(GYM), **settings)
    return choose(ENVS, name, "env")(**settings)


def make_task(name: str, *, num_threads: int | None = 1, dynamics: str | None = None, **settings: Any) -> Task:
    """Build a task together with its true dynamics, cost and baselines; nothing is drawn unless cameras are named.

    Args:
        name: As `make` takes it.
        num_threads: CPU threads of the true dynamics; None for all that this process may use.
        dynamics: "simulator" (MuJoCo on the CPU), "warp" (MuJoCo Warp) or "stepping" (environments of gymnasium); by
            default what suits the task.
        **settings: Arguments of the task's class.

    Raises:
        UnknownName: If there is no such task or dynamics; lists what exists.
        MissingPackage: If the package of the dynamics is not installed.
    """
    from jepa_mpc.envs.task import task_of

    return task_of(name, make(name, **{"cameras": (), **settings}), num_threads=num_threads, dynamics=dynamics)


def register() -> None:
    """Tell gymnasium of every task, so that `gymnasium.make("reach-v1")` works; calling it again changes nothing."""
    import gymnasium

    for name, builder in ENVS.items():
        if name not in gymnasium.registry:
            maker = builder.func if isinstance(builder, partial) else builder
            kwargs = builder.keywords if isinstance(builder, partial) else {}
            gymnasium.register(name, entry_point=f"{__name__}:{maker.__name__}", kwargs=dict(kwargs))


def make_async(name: str, *, count: int, **settings: Any) -> AsyncVectorEnv:
    """Several copies of a task, each in a process of its own.

    The processes are started afresh rather than forked: a forked process would inherit OpenGL's state without the
    threads behind it. A script that calls this needs the usual `if __name__ == "__main__"`.

    Args:
        name: A name of `ENVS`.
        count: Number of processes.
        **settings: Arguments of the task's class.

    Raises:
        UnknownName: If there is no such task.
    """
    from gymnasium.vector import AsyncVectorEnv

    return AsyncVectorEnv([partial(choose(ENVS, name, "env"), **settings)] * count, context="spawn")
