"""The dynamics loss: predict the next latent state from the current one and the action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.interfaces import Batch, Regulariser
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss
from jepa_mpc.world_model.parts.distances import Distance, SquaredError
from jepa_mpc.world_model.parts.predictors import RollingPredictor
from jepa_mpc.world_model.parts.targets import FrozenTarget, SharedTarget

ExtraTerm = Callable[[Latents, Tensor, Generator], Tensor]


class Reading(Protocol):
    """A loss on head outputs."""

    def __call__(self, latents: Latents, batch: Batch, *, first: int = 0, seen: Latents | None = None) -> Tensor:
        """A scalar for latents B T N D of the batch's observations from `first` on.

        For predicted latents, `seen` are the encoded latents of the same observations.
        """


Augment = Callable[[Frames, Generator], Frames]


@dataclass(frozen=True, kw_only=True)
class Course:
    """Input of a loss on fed-back predictions.

    Args:
        predictor: The predictor.
        latents: True latents `B T N D`.
        targets: Targets `B T N D`.
        actions: `B T-1 A`.
        proprio: `B T P`, or None.
        predicted: Predictions from the first T - 1 true latents `B T-1 N D`.
        distance: Between prediction and target.
    """

    predictor: RollingPredictor
    latents: Latents
    targets: Latents
    actions: Annotated[Tensor, "B T-1 A"]
    proprio: Annotated[Tensor, "B T P"] | None
    predicted: Latents
    distance: Distance


class FedBack(Protocol):
    """A loss on predictions that are fed back."""

    @property
    def weight(self) -> float:
        """Weight of the loss."""

    def __call__(self, course: Course) -> Tensor:
        """A scalar."""


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """A loss on a rollout as in planning: the predictor's own poses and latents are fed back.

    Args:
        weight: Weight of the loss.
        steps: Number of steps, or None for as many as the batch holds.
        context: True frames at the start.
    """

    weight: float
    steps: int | None = None
    context: int = 1

    def __call__(self, course: Course) -> Tensor:
        """Distance of the predicted latents from the targets."""
        return self.gap(self.imagine(course), course)

    def imagine(self, course: Course) -> Latents:
        """Predicted latents `B S N D` of the observations from number `context` on."""
        start, count = self.context, course.actions.shape[1]
        steps = min(self.steps or count, count - start + 1)
        plans = course.actions[:, None, start - 1 : start - 1 + steps]
        known = None if course.proprio is None else course.proprio[:, :start]
        imagined, _ = course.predictor.rollout(course.latents[:, :start], course.actions[:, : start - 1], plans, known)
        return imagined[:, 0]

    def gap(self, imagined: Latents, course: Course) -> Tensor:
        """Distance of imagined latents from the targets."""
        return course.distance(imagined, course.targets[:, self.context : self.context + imagined.shape[1]])


class DynamicsObjective(nn.Module):
    """Encoder and predictor trained jointly on windows of frames and actions.

        loss = |g(z_<=t, a_<=t) - target_t+1| + w * |open loop| + sum w_i * regulariser_i(z) + sum w_j * extra_j(z, a)
             + sum w_k * (reading_k(z, batch) + reading_k(g(z, a), batch) + reading_k(open loop, batch))

    With a shared target both sides receive gradient; there is no stop-gradient. Batches hold `frames` B T C h w,
    `actions` B T-1 A in physical units, and `proprio` B T P if the predictor uses it.

    Args:
        encoder: Maps prepared images `(B T, C, h, w)` to tokens `(B T, N, D)`.
        predictor: Predicts the next states.
        preprocess: Prepares frames for the encoder, in training and at test time.
        augment: Augments the raw frames in training mode, or None.
        target: Makes the targets.
        distance: Between prediction and target.
        regularisers: (name, weight, part); each gets one sample set over the worlds per time step and token `(T N, B,
            D)`.
        extra: (name, weight, part); parts get latents B T N D, actions B T-1 A and a generator, and may have weights.
        open_loop: The loss on fed-back predictions, or None.
        readings: (name, weight, part); parts get latents B T N D and the batch, which holds labels from the log. They
            are applied to the true latents, to the predicted latents of the next observations (loss term
            `<name>_foreseen`), and to those of the open loop (`<name>_imagined`).
        finder: A trained network that agents use beside the encoder, kept as it is, or None.

    Reference: Maes et al. 2026, arXiv:2603.19312.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        predictor: RollingPredictor,
        preprocess: Callable[[Frames], Frames] | None = None,
        augment: Augment | None = None,
        target: SharedTarget | FrozenTarget | None = None,
        distance: Distance | None = None,
        regularisers: Sequence[tuple[str, float, Regulariser]] = (),
        extra: Sequence[tuple[str, float, ExtraTerm]] = (),
        open_loop: FedBack | None = None,
        readings: Sequence[tuple[str, float, Reading]] = (),
        finder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.preprocess = preprocess or NormalisePixels()
        self.augment = augment
        self.target = target or SharedTarget()
        self.distance = distance or SquaredError()
        self.regularisers = tuple(regularisers)
        self.extra = tuple(extra)
        self.open_loop = open_loop
        self.readings = tuple(readings)
        self.finder = None if finder is None else finder.requires_grad_(False)
        named: list[tuple[str, object]] = [(name, part) for name, _, part in self.regularisers]
        named += [(name, part) for name, _, part in self.extra]
        named += [(name, part) for name, _, part in self.readings]
        _refuse_equal_names([name for name, _ in named])
        self.parts = nn.ModuleDict({name: part for name, part in named if isinstance(part, nn.Module)})

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch.

        Raises:
            ValueError: If the batch's shapes do not fit each other.
        """
        frames, actions = batch["frames"], batch["actions"]
        sizes = check_shape(frames, "B T C h w")
        check_shape(actions, "B T A", B=sizes["B"], T=sizes["T"] - 1)
        proprio = batch.get("proprio") if self.predictor.proprio is not None else None
        latents, targets = self._encode(frames, generator)
        known = None if proprio is None else proprio[:, :-1]
        predicted, after = self.predictor.predict(latents[:, :-1], actions, known)
        weighted = {"prediction": (1.0, self.distance(predicted, targets[:, 1:]))}
        if proprio is not None and after is not None and self.predictor.proprio is not None:
            weighted["proprio"] = (1.0, self.predictor.proprio.gap(after, proprio[:, 1:]))
        imagined: Latents | None = None
        if self.open_loop is not None:
            course = Course(
                predictor=self.predictor, latents=latents, targets=targets, actions=actions, proprio=proprio,
                predicted=predicted, distance=self.distance,
            )  # fmt: skip
            if isinstance(self.open_loop, OpenLoop):
                imagined = self.open_loop.imagine(course)
                weighted["open_loop"] = (self.open_loop.weight, self.open_loop.gap(imagined, course))
            else:
                weighted["open_loop"] = (self.open_loop.weight, self.open_loop(course))
        samples = latents.permute(1, 2, 0, 3).flatten(0, 1)  # (T N, B, D)
        for name, weight, regulariser in self.regularisers:
            weighted[name] = (weight, regulariser(samples, generator))
        for name, weight, term in self.extra:
            weighted[name] = (weight, term(latents, actions, generator))
        for name, weight, reading in self.readings:
            weighted[name] = (weight, reading(latents, batch))
            weighted[f"{name}_foreseen"] = (weight, reading(predicted, batch, first=1, seen=latents[:, 1:]))
            if imagined is not None and isinstance(self.open_loop, OpenLoop):
                first = self.open_loop.context
                seen = latents[:, first : first + imagined.shape[1]]
                weighted[f"{name}_imagined"] = (weight, reading(imagined, batch, first=first, seen=seen))
        return total_of(weighted)

    def encode(self, frames: Frames) -> Latents:
        """Latents of camera frames `(B, T, C, h, w)`, uint8 or float 0..255."""
        sizes = check_shape(frames, "B T C h w")
        tokens = self.encoder(self.preprocess(frames.flatten(0, 1)))
        return tokens.unflatten(0, (sizes["B"], sizes["T"]))

    def after_step(self, progress: float) -> None:
        """Update the target after an optimiser step; `progress` runs from 0 to 1."""
        self.target.update(self.encoder, progress)

    def _encode(self, frames: Frames, generator: Generator) -> tuple[Latents, Latents]:
        if self.training and self.augment is not None:
            frames = self.augment(frames, generator)
        images = self.preprocess(frames.flatten(0, 1))
        online = self.encoder(images)
        targets = self.target(images, online)
        return online.unflatten(0, frames.shape[:2]), targets.unflatten(0, frames.shape[:2])


def total_of(weighted: dict[str, tuple[float, Tensor]]) -> Loss:
    """The weighted sum of named terms, and each unweighted term for the log."""
    total = sum((weight * term for weight, term in weighted.values() if weight), start=0.0)
    assert isinstance(total, Tensor)
    terms = {name: term.detach() for name, (_, term) in weighted.items()}
    return Loss(total=total, terms={**terms, "total": total.detach()})


def _refuse_equal_names(names: Sequence[str]) -> None:
    reserved = ["prediction", "open_loop", "proprio", "total"]
    all_names = [*names, *reserved]
    if len(set(all_names)) != len(all_names):
        raise ValueError(f"each loss term needs a name of its own, other than {reserved}; got {list(names)}")
