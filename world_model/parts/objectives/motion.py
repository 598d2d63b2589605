"""Joint learning of motion and content: one encoder, flow between frames, and agreement between views of a frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.pyramid import CHANNELS_PER_CAMERA, PyramidEncoder
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss
from jepa_mpc.world_model.parts.flow import Flow, resize_flow
from jepa_mpc.world_model.parts.flow_pyramid import PyramidFlow
from jepa_mpc.world_model.parts.objectives.dynamics import total_of
from jepa_mpc.world_model.parts.objectives.motion_terms import (
    Fading,
    FramePairs,
    MotionWeights,
    Pictures,
    Terms,
    motion_terms,
    turned,
)
from jepa_mpc.world_model.parts.objectives.views import Change, Views
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from jepa_mpc.world_model.parts.targets import SharedTarget


class MotionContentObjective(nn.Module):
    """The loss of MC-JEPA: self-supervised flow and VICReg on one encoder, jointly.

        loss = content + alpha * (reconstruction + coarse + smooth + regression + cycle + spread)

        reconstruction   l1 |I_a - w(I_b)| + l2 (I_a - w(I_b))^2 + ssim (1 - SSIM(I_a, w(I_b))) / 2
        coarse           the same on images downsampled to each level that has a flow
        smooth           edge-aware steps of the flow                          w(x)(p) = x(p + flow(p))
        regression       |X_a - w(X_b)|^2            at every level of the pyramid X
        cycle            |w_ba(w_ab(X_b)) - X_b|^2   at the finest level that has a flow
        spread           variance-covariance         at every level
        content          VICReg between the expanded means of the coarsest level for two views of an image

    All motion terms are computed in both directions. Pixels that leave the image are excluded, and so are those that
    fail the round-trip check (occlusions). If most pixels of an image fail it, the flow is wrong rather than the scene
    occluded, and all are kept.

    Batches hold `frames` B T C h w with T >= 2; every sample gives one pair of neighbouring frames per camera.

    Args:
        encoder: Computes the pyramid, and the tokens for other systems.
        head: Maps two pyramids to flows.
        expander: Maps means of the coarsest level to VICReg's projections, or None for no content branch.
        views: Augments raw frames `B T C h w` into another view; drawn twice per image.
        prepare: Scales frames 0..255 for the encoder.
        alpha: Weight of the motion branch.
        weights: Weights of its terms.
        content: The loss between two views.
        spread: The regulariser of every level.
        content_only: Share of the training, at its start, with the content loss alone.
        relax: Schedule of the smoothness weight over the training: large motions are learned first, then edges. Ours;
            by default constant.

    Raises:
        ValueError: If there is an expander but no `views`.

    Reference: Bardes et al. 2023, arXiv:2307.12698.
    """

    progress: Tensor

    def __init__(
        self,
        *,
        encoder: PyramidEncoder,
        head: PyramidFlow,
        prepare: Callable[[Tensor], Tensor],
        expander: nn.Module | None = None,
        views: Change | None = None,
        alpha: float = 0.1,
        weights: MotionWeights | None = None,
        content: TwoViews | None = None,
        spread: VICReg | None = None,
        content_only: float = 0.0,
        relax: Fading | None = None,
    ) -> None:
        super().__init__()
        if expander is not None and views is None:
            raise ValueError("the content branch compares two views of an image: pass the part that makes them")
        self.encoder, self.head, self.expander = encoder, head, expander
        self.target = SharedTarget()
        self.prepare = prepare
        self.views, self.alpha, self.content_only, self.relax = views, alpha, content_only, relax or Fading(1.0)
        self.weights = weights or MotionWeights()
        self.content = content or TwoViews()
        self.spread = spread or VICReg(variance_weight=1.0, covariance_weight=0.04)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    @property
    def published(self) -> PyramidEncoder:
        """The encoder for other systems."""
        return self.encoder

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch.

        Raises:
            ValueError: If there is a single frame per sample.
        """
        first, second = _neighbours(batch["frames"], generator)
        terms = self._motion(first, second, generator)
        weight, roughness = terms["smooth"]
        terms["smooth"] = (weight, self.relax(self.progress.to(roughness.dtype)) * roughness)
        begun = (self.progress >= self.content_only).to(first.dtype) if self.expander is not None else 1.0
        scale = self.alpha if self.expander is not None else 1.0
        weighted = {name: (scale * weight, begun * term) for name, (weight, term) in terms.items()}
        if self.expander is not None:
            weighted |= self._content(first, generator)
        return total_of(weighted)

    def encode(self, frames: Frames) -> Latents:
        """Tokens of camera frames `B T C h w`, uint8 or float 0..255."""
        sizes = check_shape(frames, "B T C h w")
        return self.encoder(self.prepare(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))

    def flow(self, frame_a: Pictures, frame_b: Pictures) -> Flow:
        """The optical flow from one frame to another.

        Args:
            frame_a: Images of one camera `B 3 h w`, uint8 or float 0..255.
            frame_b: Later images of the same camera.

        Returns:
            `B 2 h w`: pixels to the right, pixels down, for the pixels of `frame_a`.

        Raises:
            BadObservation: If the two differ in shape or are not images of one camera.
        """
        if frame_a.shape != frame_b.shape or frame_a.dim() != 4 or frame_a.shape[1] != CHANNELS_PER_CAMERA:
            raise BadObservation(
                f"flow needs two frames (B, 3, h, w) of one shape, got {tuple(frame_a.shape)} and "
                f"{tuple(frame_b.shape)}: cut several cameras apart first"
            )
        features = self.encoder.levels(self.prepare(torch.cat([frame_a, frame_b])))
        halves = [level.chunk(2) for level in features]
        flows = self.head([here for here, _ in halves], [there for _, there in halves])
        return resize_flow(flows[0], (frame_a.shape[-2], frame_a.shape[-1]))

    def after_step(self, progress: float) -> None:
        """Store the progress of the training; `progress` runs from 0 to 1."""
        self.progress.fill_(progress)

    def _motion(self, first: Tensor, second: Tensor, generator: Generator) -> Terms:
        """Weights and values of the motion terms for frames `B 3 h w` on the scale 0 to 255."""
        both = torch.cat([first, second])
        features = self.encoder.levels(self.prepare(both))
        others = [turned(level) for level in features]
        pairs = FramePairs(
            first=both / 255, second=turned(both) / 255, features_first=features, features_second=others,
            flows=self.head(features, others), skip=self.head.skip,
        )  # fmt: skip
        return motion_terms(pairs, self.weights, self.spread, generator)

    def _content(self, frames: Tensor, generator: Generator) -> Terms:
        """Terms of VICReg between two views of frames `B 3 h w`."""
        assert self.views is not None and self.expander is not None
        changed = Views(change=self.views, count=2)(frames, generator)
        means = self.encoder.levels(self.prepare(changed))[-1].mean(dim=(-2, -1))
        first, second = self.expander(means).chunk(2)
        return {f"content/{name}": term for name, term in self.content.terms(first, second).items()}


def expander(width: int, *, hidden: int, depth: int = 3, output: int | None = None) -> nn.Sequential:
    """A projection for a loss on views: linear layers with batch norm and ReLU between them.

    Layers before a batch norm have no bias, which the norm would remove; neither has the last one without `output`,
    since VICReg is invariant to it.

    Args:
        width: Input width.
        hidden: Width of the inner layers.
        depth: Number of linear layers.
        output: Width of the last layer, which then has a bias; by default `hidden`, without one.

    Reference: Bardes et al. 2022, arXiv:2105.04906, section 4.2; Balestriero and LeCun 2025, arXiv:2511.08544.
    """
    layers: list[nn.Module] = []
    for index in range(depth - 1):
        layers += [nn.Linear(hidden if index else width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, output or hidden, bias=output is not None))


def _neighbours(frames: Frames, generator: Generator) -> tuple[Tensor, Tensor]:
    """A random frame of each sample and the next one, every camera separately: float `B 3 h w` twice."""
    sizes = check_shape(frames, "B T C h w")
    if sizes["T"] < 2 or sizes["C"] % CHANNELS_PER_CAMERA:
        raise ValueError(f"motion needs two frames and 3 channels per camera, got {tuple(frames.shape)} as B T C h w")
    at = torch.randint(sizes["T"] - 1, (sizes["B"],), generator=generator, device=generator.device).to(frames.device)
    sample = torch.arange(sizes["B"], device=frames.device)
    first, second = (frames[sample, at + later].float() for later in (0, 1))
    return first.unflatten(1, (-1, 3)).flatten(0, 1), second.unflatten(1, (-1, 3)).flatten(0, 1)
