"""The simulator as a world model, by name: what `dynamics=` of a command chooses.

dynamics = true_dynamics(env, "warp")
rollout = dynamics.rollout(context, plans)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jepa_mpc.envs.gym.stepping import SteppingDynamics
from jepa_mpc.envs.oracle_cpu import Simulated, TrueDynamics
from jepa_mpc.envs.oracle_warp import WarpDynamics
from jepa_mpc.errors import choose

SIMULATOR, WARP, STEPPING = "simulator", "warp", "stepping"

Truth = TrueDynamics | WarpDynamics | SteppingDynamics


def _on_threads(env: Simulated, num_threads: int) -> TrueDynamics:
    return TrueDynamics(env, num_threads=num_threads)


def _on_warp(env: Simulated, num_threads: int) -> WarpDynamics:
    return WarpDynamics(env)


def _step_by_step(env: Any, num_threads: int) -> SteppingDynamics:
    if not hasattr(env, "try_out"):
        raise ValueError("dynamics=stepping is for environments of gymnasium: this task is planned in by its simulator")
    env.state()  # where it cannot go back to one, it says why
    return SteppingDynamics(env)


DYNAMICS: Mapping[str, Callable[[Any, int], Truth]] = {
    SIMULATOR: _on_threads,
    WARP: _on_warp,
    STEPPING: _step_by_step,
}


def usual_dynamics(env: Any) -> str:
    """The name in `DYNAMICS` that suits an environment: the simulator, unless it says otherwise."""
    return str(getattr(env, "usual_dynamics", SIMULATOR))


def true_dynamics(env: Any, kind: str | None = None, *, num_threads: int = 1) -> Truth:
    """The dynamics of a task as it is now.

    Args:
        env: The environment; its model is read, its state is left alone.
        kind: "simulator" (MuJoCo on CPU threads, exact), "warp" (MuJoCo Warp on its default device, in float32) or
            "stepping" (a gymnasium environment carries plans out itself and goes back); by default what suits it.
        num_threads: CPU threads of "simulator".

    Raises:
        UnknownName: If there is no such kind; lists what exists.
        MissingPackage: If mujoco-warp is asked for and not installed.
    """
    chosen = choose(DYNAMICS, usual_dynamics(env) if kind is None else kind, "dynamics")
    if chosen is _on_threads:
        _ = env.plant  # where it has none, it says why
    return chosen(env, num_threads)
