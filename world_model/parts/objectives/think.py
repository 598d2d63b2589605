"""The loss of ThinkJEPA: predict future tokens and the path of the hand from a short dense view and a thinker.

loss = mean |p - sg(z_future)|^2 + w mean |path(p) - places|^2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.objectives.dynamics import Augment, total_of
from jepa_mpc.world_model.parts.objectives.think_path import Path, PathHead, path_errors
from jepa_mpc.world_model.parts.objectives.think_standin import Thinker
from jepa_mpc.world_model.parts.objectives.think_views import ClipViews
from jepa_mpc.world_model.parts.predictors.guidance import ThinkerFeatures
from jepa_mpc.world_model.parts.predictors.guided import GuidedPredictor
from jepa_mpc.world_model.parts.predictors.masked import RotaryMaskedPredictor
from jepa_mpc.world_model.parts.targets import SharedTarget

HAND = (-6, -5, -4)
"""Indices of the hand position (m) in the proprioception of logs."""

FEATURES = ("old", "old_mask", "new", "new_mask", "frames")


class ThinkObjective(nn.Module):
    """A masked predictor of the future of a window, guided by a thinker's features of its past.

    The encoder is frozen and encodes every frame separately, so that the observed tokens contain no future information
    and the targets cannot collapse. Batches hold `frames` B T C h w (or precomputed `latents` B T N D) and, with a
    head, `proprio` B T P. They may contain a thinker's features as `thinker_old`, `thinker_old_mask`, `thinker_new`,
    `thinker_new_mask` and `thinker_frames` (see `ThinkerFeatures`; frame indices count from the window's first);
    otherwise `thinker` computes them.

    Args:
        encoder: Prepared images to tokens.
        predictor: The guided predictor, or an unguided one.
        views: Assignment of frames to the views.
        thinker: Computes features if the batch has none.
        head: Reads the path from predicted tokens, or None.
        position: Indices of the path in the proprioception.
        path_weight: Weight of the path loss, in m^2.
        preprocess: Prepares frames for the encoder.
        augment: Augments the raw frames in training mode, or None.

    Raises:
        ValueError: If the head's outputs do not match `position`, or an unguided predictor gets a thinker.

    Reference: Zhang et al. 2026, arXiv:2603.22281.
    """

    def __init__(
        self,
        *,
        encoder: FrozenFrames,
        predictor: GuidedPredictor | RotaryMaskedPredictor,
        views: ClipViews,
        thinker: Thinker | None = None,
        head: PathHead | None = None,
        position: Sequence[int] = HAND,
        path_weight: float = 1.0,
        preprocess: Callable[[Frames], Frames] | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        if head is not None and head.outputs != len(position):
            raise ValueError(f"the head reads {head.outputs} numbers and position names {len(position)}")
        if thinker is not None and not isinstance(predictor, GuidedPredictor):
            raise ValueError("a plain predictor listens to no thinker: give a GuidedPredictor, or thinker=None")
        self.encoder, self.predictor, self.views, self.head = encoder, predictor, views, head
        self.thinker, self.position, self.path_weight = thinker, tuple(position), path_weight
        self.preprocess = preprocess or NormalisePixels()
        self.augment = augment
        self.target, self.distance = SharedTarget(), SquaredError()

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch.

        Raises:
            ValueError: If the batch's shapes do not fit the views or the network, there is no guidance, or the
                thinker's features come from the future.
        """
        frames = batch.get("frames")
        if frames is not None and self.training and self.augment is not None:
            frames = self.augment(frames, generator)
        dense, future = self._tokens(batch.get("latents"), frames)
        predicted = self._foreseen(dense, self.features(batch, frames))
        return self.loss(predicted, dense, future, self._places(batch))

    def loss(self, predicted: Latents, dense: Latents, future: Latents, places: Path | None) -> Loss:
        """The loss of a prediction.

        Args:
            predicted: `B H N D`.
            dense: True tokens of the dense view `B k N D`.
            future: True tokens of the future `B H N D`.
            places: True path `B H Q` (m), or None without a head.
        """
        wanted = future.detach()
        weighted = {
            "latent": (1.0, self.distance(predicted, wanted)),
            "standing": (0.0, self.distance(dense[:, -1:].expand_as(wanted), wanted)),  # no motion
            "predicted_spread": (0.0, spread(predicted) / spread(wanted).clamp_min(1e-12)),  # near zero: collapsed
        }
        if self.head is not None and places is not None:
            path = self.head(predicted)
            weighted["path"] = (self.path_weight, self.distance(path, places))
            weighted |= {name: (0.0, value) for name, value in path_errors(path, places).items()}
        if isinstance(self.predictor, GuidedPredictor):
            weighted["gate"] = (0.0, self.predictor.gates.abs().mean())
        return total_of(weighted)

    def foresee(self, dense: Latents, features: ThinkerFeatures | None) -> Latents:
        """Predicted tokens `B H N D` of the future, from those of the dense view `B k N D`.

        Raises:
            ValueError: If a guided predictor gets no features, or features from the future.
        """
        if features is not None:
            features.check_observed(self.views.last_observed)
        return self._foreseen(dense, features)

    def path(self, predicted: Latents) -> Path:
        """Positions `B H Q` (m) read from predicted tokens `B H N D`.

        Raises:
            ValueError: If there is no head.
        """
        if self.head is None:
            raise ValueError("this system was built without a head for the path")
        return self.head(predicted)

    def features(self, batch: Batch, frames: Frames | None) -> ThinkerFeatures | None:
        """The thinker's features: from the batch, or computed from the sparse view of its frames.

        Raises:
            ValueError: If the batch has only some of the features, or they come from the future.
        """
        brought = [name for name in FEATURES if f"thinker_{name}" in batch]
        if brought and isinstance(self.predictor, GuidedPredictor):
            missing = [f"thinker_{name}" for name in FEATURES if name not in brought]
            if missing:
                raise ValueError(f"the batch brings a thinker's features without {', '.join(missing)}")
            features = ThinkerFeatures(**{name: batch[f"thinker_{name}"] for name in FEATURES})
            features.check_observed(self.views.last_observed)  # synchronises; needed for external features
            return features
        if self.thinker is None or frames is None:
            return None
        seen = frames[:, list(self.views.sparse)]
        images = self.preprocess(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return self.thinker(self.encoder.encoder, images, self.views.sparse)  # type: ignore[arg-type]

    def encode(self, frames: Frames) -> Latents:
        """Tokens of camera frames `(B, T, C, h, w)`, each separately."""
        sizes = check_shape(frames, "B T C h w")
        return self.encoder(self.preprocess(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))

    def after_step(self, progress: float) -> None:
        """Does nothing; `progress` runs from 0 to 1."""

    def _foreseen(self, dense: Latents, features: ThinkerFeatures | None) -> Latents:
        size = check_shape(dense, "B T N D", T=len(self.views.dense))
        count, horizon = size["T"] * size["N"], len(self.views.future)
        at = torch.arange(count + horizon * size["N"], device=dense.device).expand(size["B"], -1)
        asked = (dense.flatten(1, 2), at[:, :count], at[:, count:])
        if not isinstance(self.predictor, GuidedPredictor):
            return self.predictor(*asked).unflatten(1, (horizon, size["N"]))
        if features is None:
            raise ValueError(
                "this predictor is guided and has no thinker: add thinker_old, thinker_new, their masks and "
                "thinker_frames to the batch, pass a thinker, or use a plain predictor"
            )
        return self.predictor(*asked, features=features).unflatten(1, (horizon, size["N"]))

    def _places(self, batch: Batch) -> Path | None:
        """The target path of the head."""
        if self.head is None:
            return None
        if "proprio" not in batch:
            raise ValueError(f"the path is read from proprio, and the batch holds {', '.join(batch)}: or build no head")
        proprio = batch["proprio"]
        size = check_shape(proprio, "B T P", T=self.views.length)
        if not all(-size["P"] <= index < size["P"] for index in self.position):
            raise ValueError(f"the path is read from axes {self.position} of the proprioception, which has {size['P']}")
        return proprio[:, list(self.views.future)][..., list(self.position)]

    def _tokens(self, latents: Latents | None, frames: Frames | None) -> tuple[Latents, Latents]:
        """True tokens of the dense view and of the future."""
        given = latents if latents is not None else frames
        if given is None:
            raise ValueError("the batch must hold frames, or latents that were made before")
        if given.shape[1] != self.views.length:
            raise ValueError(
                f"the system learns windows of {self.views.length} observations ({self.views.last_observed + 1} seen), "
                f"got {given.shape[1]}: use window={self.views.length}"
            )
        chosen = given[:, [*self.views.dense, *self.views.future]]
        tokens = chosen if latents is not None else self.encode(chosen)
        return tokens[:, : len(self.views.dense)], tokens[:, len(self.views.dense) :]


def spread(latents: Latents) -> Tensor:
    """Standard deviation of each entry over the worlds, averaged."""
    return latents.detach().std(dim=0, correction=0).mean()
