"""The simulator as a world model, by name: the choices of a command's `dynamics=`.

dynamics = true_dynamics(env, "warp")
rollout = dynamics.rollout(context, plans)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jepa_mpc.envs.gym.stepping import SideBySideDynamics, SteppingDynamics
from jepa_mpc.envs.oracle_cpu import Simulated, TrueDynamics
from jepa_mpc.envs.oracle_warp import WarpDynamics
from jepa_mpc.errors import choose

SIMULATOR, WARP, STEPPING = "simulator", "warp", "stepping"

Truth = TrueDynamics | WarpDynamics | SteppingDynamics | SideBySideDynamics


def _on_threads(env: Simulated, num_threads: int) -> TrueDynamics:
    return TrueDynamics(env, num_threads=num_threads)


def _on_warp(env: Simulated, num_threads: int) -> WarpDynamics:
    return WarpDynamics(env)


def _step_by_step(env: Any, num_threads: int) -> SteppingDynamics:
    if not hasattr(env, "try_out"):
        raise ValueError("dynamics=stepping is for environments of gymnasium: this task uses dynamics=simulator")
    env.state()  # raises if states cannot be restored
    return SteppingDynamics(env)


DYNAMICS: Mapping[str, Callable[[Any, int], Truth]] = {
    SIMULATOR: _on_threads,
    WARP: _on_warp,
    STEPPING: _step_by_step,
}


def usual_dynamics(env: Any) -> str:
    """Default name in `DYNAMICS` of an environment: the simulator, unless it declares another."""
    return str(getattr(env, "usual_dynamics", SIMULATOR))


def true_dynamics(env: Any, kind: str | None = None, *, num_threads: int = 1) -> Truth:
    """The dynamics of the current task.

    Args:
        env: The environment, or several side by side; its model is read, its state is not modified.
        kind: "simulator" (MuJoCo on CPU threads, exact), "warp" (MuJoCo Warp on its default device, in float32) or
            "stepping" (a gymnasium environment executes plans itself and is restored); by default chosen by the
            environment.
        num_threads: CPU threads of "simulator".

    Raises:
        UnknownName: If there is no such kind; lists the known ones.
        MissingPackage: If mujoco-warp is requested and not installed.
    """
    if hasattr(env, "copies"):
        return SideBySideDynamics([true_dynamics(one, kind, num_threads=num_threads) for one in env.copies])
    chosen = choose(DYNAMICS, usual_dynamics(env) if kind is None else kind, "dynamics")
    if chosen is _on_threads:
        _ = env.plant  # raises if there is none
    return chosen(env, num_threads)
