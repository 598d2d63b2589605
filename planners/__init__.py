"""Optimisers of action sequences. They see a cost function, never the world behind it.

    result = PLANNERS["cem"](num_samples=300).plan(request)

A planner holds settings only; the result of a search is the `PlanResult`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.optim import Adam

from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Planner
from jepa_mpc.planners.chain import Chain
from jepa_mpc.planners.covariance import CovarianceRefit
from jepa_mpc.planners.gradient import QUICK_BETAS, GradientPlanner
from jepa_mpc.planners.knots import KnotPlanner, Spline
from jepa_mpc.planners.lifted import LiftedPlanner
from jepa_mpc.planners.noise import ColouredNoise, WhiteNoise
from jepa_mpc.planners.optimisers import Paces
from jepa_mpc.planners.projection import BoxProjection, GripperProjection
from jepa_mpc.planners.refinement import GradientRefinement
from jepa_mpc.planners.refit import BestRefit, EliteRefit, Gaussian, SoftmaxRefit
from jepa_mpc.planners.sampling import Answer, SamplingPlanner
from jepa_mpc.planners.search import NoValidPlan
from jepa_mpc.planners.slope import SlopeRefit

GRIPPER_MOMENTA = (0.15, 0.15)  # of mean and standard deviation, whatever the other axes' are


def random_shooting(*, num_samples: int = 1024, initial_std: float = 0.7) -> SamplingPlanner:
    """Random shooting: score one round of random plans and return the best."""
    return SamplingPlanner(refit=BestRefit(), num_samples=num_samples, num_iterations=1, initial_std=initial_std)


def cem(
    *,
    num_samples: int = 256,
    num_elites: int = 32,
    num_iterations: int = 10,
    initial_std: float = 0.5,
    min_std: float = 0.01,
    momentum: float = 0.1,
) -> SamplingPlanner:
    """Cross-entropy method (CEM): refits a Gaussian to the elites of each round."""
    return SamplingPlanner(
        refit=EliteRefit(num_elites=num_elites, momentum=momentum),
        num_samples=num_samples,
        num_iterations=num_iterations,
        initial_std=initial_std,
        min_std=min_std,
    )


def icem(
    *,
    num_samples: int = 128,
    num_elites: int = 16,
    num_iterations: int = 10,
    initial_std: float = 0.5,
    min_std: float = 0.005,
    momentum: float = 0.1,
    beta: float = 1.0,
    num_kept: int = 5,
    decay: float = 1.25,
) -> SamplingPlanner:
    """iCEM, CEM for real time: coloured noise, kept elites, shrinking rounds, and the mean scored in the last one."""
    return SamplingPlanner(
        refit=EliteRefit(num_elites=num_elites, momentum=momentum),
        noise=ColouredNoise(beta=beta),
        num_samples=num_samples,
        num_iterations=num_iterations,
        initial_std=initial_std,
        min_std=min_std,
        num_kept=num_kept,
        decay=decay,
        try_mean="last",
    )


def mppi(
    *,
    num_samples: int = 256,
    num_elites: int = 64,
    num_iterations: int = 10,
    initial_std: float = 0.5,
    min_std: float = 0.01,
    temperature: float = 0.3,
    std_momentum: float = 0.1,
) -> SamplingPlanner:
    """Model-predictive path integral control (MPPI): weights fall exponentially with the cost and set the spread."""
    refit = SoftmaxRefit(temperature=temperature, num_elites=num_elites, std_momentum=std_momentum, unit="spread")
    return SamplingPlanner(
        refit=refit, num_samples=num_samples, num_iterations=num_iterations, initial_std=initial_std, min_std=min_std
    )


def cma(*, num_samples: int = 32, num_iterations: int = 30, initial_std: float = 0.5) -> SamplingPlanner:
    """CMA-ES: learns the covariance between the entries of a plan, over many small rounds."""
    return SamplingPlanner(
        refit=CovarianceRefit(), num_samples=num_samples, num_iterations=num_iterations, initial_std=initial_std
    )


def slope(
    *, num_samples: int = 32, num_iterations: int = 30, initial_std: float = 0.5, ridge: float = 0.01
) -> SamplingPlanner:
    """Descent along slopes fitted to each round: few evaluations where the cost is smooth; needs no gradients."""
    return SamplingPlanner(
        refit=SlopeRefit(ridge=ridge),
        num_samples=num_samples,
        num_iterations=num_iterations,
        initial_std=initial_std,
        num_kept=1,
    )


def hand_cem(
    *,
    num_samples: int = 800,
    num_elites: int = 10,
    num_iterations: int = 10,
    momentum_mean: float = 0.15,
    momentum_std: float = 0.15,
    gripper: int | None = None,
    close_from: int | None = None,
    answer: Answer = "best",
) -> SamplingPlanner:
    """The CEM of V-JEPA 2-AC; `gripper` is the index of the gripper axis, if plans may move one."""
    own = {} if gripper is None else {gripper: GRIPPER_MOMENTA}
    refit = EliteRefit(
        num_elites=num_elites, momentum=momentum_mean, std_momentum=momentum_std, axis_momenta=own, correction=1
    )
    rules = BoxProjection() if gripper is None else GripperProjection(axis=gripper, close_from=close_from)
    return SamplingPlanner(
        refit=refit,
        projection=rules,
        num_samples=num_samples,
        num_iterations=num_iterations,
        initial_std=1.0,
        try_mean="end",
        answer=answer,
    )


def gradient(
    *,
    num_starts: int = 16,
    num_iterations: int = 30,
    learning_rate: float = 0.25,
    slowest: float = 0.1,
    initial_std: float = 0.5,
) -> GradientPlanner:
    """Adam from many starts, with step sizes down to `slowest`; the rate is a share of half the box width per step."""
    return GradientPlanner(
        optimiser=Paces(make=partial(Adam, lr=learning_rate, betas=QUICK_BETAS), slowest=slowest),
        num_starts=num_starts,
        num_iterations=num_iterations,
        initial_std=initial_std,
    )


def cem_gradient(
    *,
    num_samples: int = 128,
    num_elites: int = 16,
    num_iterations: int = 5,
    num_starts: int = 8,
    num_steps: int = 15,
    learning_rate: float = 0.1,
) -> Chain:
    """A short CEM search whose best plan, and others near it, are refined by gradient steps."""
    return Chain(
        (
            cem(num_samples=num_samples, num_elites=num_elites, num_iterations=num_iterations),
            gradient(num_starts=num_starts, num_iterations=num_steps, learning_rate=learning_rate, initial_std=0.1),
        )
    )


def grad_cem(
    *,
    num_samples: int = 128,
    num_elites: int = 16,
    num_iterations: int = 8,
    num_refined: int = 16,
    num_steps: int = 2,
    learning_rate: float = 0.1,
    initial_std: float = 0.5,
    min_std: float = 0.01,
    momentum: float = 0.1,
) -> SamplingPlanner:
    """CEM whose elites take gradient steps in each round."""
    descend = partial(Adam, lr=learning_rate, betas=QUICK_BETAS)
    return SamplingPlanner(
        refit=EliteRefit(num_elites=num_elites, momentum=momentum),
        refinement=GradientRefinement(optimiser=descend, num_refined=num_refined, num_steps=num_steps),
        num_samples=num_samples,
        num_iterations=num_iterations,
        initial_std=initial_std,
        min_std=min_std,
    )


def cem_knots(
    *,
    num_knots: int = 4,
    spline: Spline = "cubic",
    num_samples: int = 128,
    num_elites: int = 16,
    num_iterations: int = 8,
    min_std: float = 0.01,
) -> KnotPlanner:
    """CEM over a few knots of each plan: far fewer parameters for a long horizon."""
    search = cem(num_samples=num_samples, num_elites=num_elites, num_iterations=num_iterations, min_std=min_std)
    return KnotPlanner(planner=search, num_knots=num_knots, spline=spline)


def lifted(
    *,
    num_starts: int = 32,
    num_rounds: int = 4,
    num_steps: int = 30,
    learning_rate: float = 0.1,
    state_rate: float = 0.005,
    weight: float = 100.0,
    state_gradient: float = 0.0,
    num_final: int = 15,
) -> Chain:
    """Optimises actions and states jointly for long horizons, then takes gradient steps; needs `request.steps`."""
    search = LiftedPlanner(
        optimiser=partial(Adam, lr=learning_rate, betas=QUICK_BETAS),
        state_optimiser=partial(Adam, lr=state_rate, betas=QUICK_BETAS),
        num_starts=num_starts,
        num_rounds=num_rounds,
        num_steps=num_steps,
        weight=weight,
        state_gradient=state_gradient,
    )
    return Chain((search, gradient(num_starts=4, num_iterations=num_final, learning_rate=0.05, initial_std=0.02)))


PLANNERS: Mapping[str, Callable[..., Planner]] = {
    "random_shooting": random_shooting,
    "cem": cem,
    "icem": icem,
    "mppi": mppi,
    "cma": cma,
    "slope": slope,
    "hand_cem": hand_cem,
    "gradient": gradient,
    "cem_gradient": cem_gradient,
    "grad_cem": grad_cem,
    "cem_knots": cem_knots,
    "lifted": lifted,
}
"""Name -> builder of a planner."""

TARGET = "_target_"


def planner_choice(spec: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the planner that a configuration asks for.

    `_target_` is a name of `PLANNERS` (older files wrote a path in front of it), the other entries are arguments.
    """
    arguments = {str(name): value for name, value in spec.items() if name != TARGET}
    return str(spec.get(TARGET, "")).rpartition(".")[2], arguments


def build_planner(name: str, arguments: Mapping[str, Any] | None = None) -> Planner:
    """Build the planner of that name. Every choice of planner passes through here.

    Args:
        name: A name of `PLANNERS`.
        arguments: Arguments of its builder; omitted ones keep the builder's defaults.

    Raises:
        UnknownName: If there is no such planner; lists the known ones.
        ValueError: If it does not take one of the arguments, or an argument is out of range.
    """
    builder = choose(PLANNERS, name, "planner")
    try:
        return builder(**(arguments or {}))
    except TypeError as error:
        raise ValueError(f"planner={name}: {error}") from error


__all__ = [
    "PLANNERS",
    "BestRefit",
    "BoxProjection",
    "Chain",
    "ColouredNoise",
    "CovarianceRefit",
    "EliteRefit",
    "Gaussian",
    "GradientPlanner",
    "GradientRefinement",
    "GripperProjection",
    "KnotPlanner",
    "LiftedPlanner",
    "NoValidPlan",
    "Paces",
    "SamplingPlanner",
    "SlopeRefit",
    "SoftmaxRefit",
    "WhiteNoise",
    "build_planner",
    "cem",
    "cem_gradient",
    "cem_knots",
    "cma",
    "grad_cem",
    "gradient",
    "hand_cem",
    "icem",
    "lifted",
    "mppi",
    "planner_choice",
    "random_shooting",
    "slope",
]
