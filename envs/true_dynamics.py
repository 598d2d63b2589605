"""The simulator as a world model, by name: what `dynamics=` of a command chooses.

dynamics = true_dynamics(env, "warp")
rollout = dynamics.rollout(context, plans)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jepa_mpc.envs.oracle_cpu import Simulated, TrueDynamics
from jepa_mpc.envs.oracle_warp import WarpDynamics
from jepa_mpc.errors import choose

SIMULATOR, WARP = "simulator", "warp"


def _on_threads(env: Simulated, num_threads: int) -> TrueDynamics:
    return TrueDynamics(env, num_threads=num_threads)


def _on_warp(env: Simulated, num_threads: int) -> WarpDynamics:
    return WarpDynamics(env)


DYNAMICS: Mapping[str, Callable[[Simulated, int], TrueDynamics | WarpDynamics]] = {
    SIMULATOR: _on_threads,
    WARP: _on_warp,
}


def true_dynamics(env: Simulated, kind: str = SIMULATOR, *, num_threads: int = 1) -> TrueDynamics | WarpDynamics:
    """The dynamics of a task as it is now.

    Args:
        env: The environment; its model is read, its state is left alone.
        kind: "simulator" (MuJoCo on CPU threads, exact) or "warp" (MuJoCo Warp on its default device, in float32).
        num_threads: CPU threads of "simulator".

    Raises:
        UnknownName: If there is no such kind; lists what exists.
        MissingPackage: If mujoco-warp is asked for and not installed.
    """
    return choose(DYNAMICS, kind, "dynamics")(env, num_threads)
