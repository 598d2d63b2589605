"""ACT-JEPA: joint prediction of an action chunk and the latent states along it.

    loss = |a_hat - a| + |z_hat - sg(f_ema(states))|           mean L1, momentum 0.996 to 1

Reference: Vujinovic and Kovacevic 2025, arXiv:2501.14622.  Preset "paper" has the published sizes and learns from
demonstrations.  "lab" and "tiny" learn from logs without tasks: a later observation of each window is the goal, its
image is an input beside the current one, the number of remaining steps replaces the task, and one more state than
actions is predicted, so that the goal's own is included.  They are narrow for training on a CPU, and have no dropout,
which harms L1 on few tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.encoders.feature_grid import FeatureGrid
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.resnet import ResNet
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.actions import ActionMap
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.parts.objectives.lessons import Demonstrations, HindsightGoals, LessonRule
from jepa_mpc.world_model.parts.predictors.chunk import ActionChunk, ChunkSizes, ContextEncoder, LatentChunk
from jepa_mpc.world_model.parts.targets import EMATarget, Momentum, linear_momentum


@dataclass(frozen=True, kw_only=True)
class ActJepaSizes:
    """Sizes and choices of a preset.

    Args:
        networks: Sizes of context, predictor and decoder.
        encoder: Builds the image encoder.
        lessons: Builds the rule that turns windows into training samples.
        momentum: Momentum of the target over the training progress.
    """

    networks: ChunkSizes
    encoder: Callable[[], nn.Module]
    lessons: Callable[[], LessonRule] = HindsightGoals
    momentum: Momentum = linear_momentum(0.996, 1.0)

    @classmethod
    def demonstrations(cls, networks: ChunkSizes) -> Self:
        """The published system with networks of these sizes: ResNet-18, learning from demonstrations."""
        return cls(
            networks=networks, encoder=lambda: FeatureGrid(ResNet(), width=networks.width), lessons=Demonstrations
        )


def _small_grid() -> nn.Module:
    return FeatureGrid(ResNet(stem=8, widths=(8, 16), depths=(1, 1)), width=32)


PRESETS = {
    "paper": ActJepaSizes.demonstrations(ChunkSizes()),
    "lab": ActJepaSizes(
        networks=ChunkSizes(
            width=128, depth=3, heads=4, hidden=256, narrow=64, narrow_depth=2, narrow_hidden=128, chunk=8, horizon=9,
            num_tasks=9, dropout=0.0,
        ),
        encoder=KeypointEncoder,
    ),
    "tiny": ActJepaSizes(
        networks=ChunkSizes(
            width=32, depth=2, heads=4, hidden=64, narrow=16, narrow_depth=1, narrow_hidden=32, chunk=3, horizon=4,
            num_tasks=4, dropout=0.0,
        ),
        encoder=_small_grid,
    ),
}  # fmt: skip


def build(
    *,
    preset: str | ActJepaSizes = "paper",
    action_dim: int,
    action_scale: Tensor | Sequence[float] | None = None,
    generator: Generator | None = None,
    **options: Any,
) -> ChunkObjective:
    """Assemble the training loss.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        action_dim: Width of an action.
        action_scale: Typical action size per axis, in its unit; without it, actions must be standardised.
        generator: Draws all initial weights; by default the global stream is used.
        **options: Further options of `build_control`, and `latent_weight`.

    Raises:
        UnknownName: If there is no such preset.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    parts = _parts(sizes, action_dim=action_dim, action_scale=action_scale, **options)
    latents, context = LatentChunk(sizes.networks), parts["context"]
    if generator is not None:
        _draw([*_networks(parts), latents], generator)
    target = EMATarget(context, momentum=sizes.momentum)  # a copy: after the weights are drawn
    return ChunkObjective(**parts, latents=latents, target=target)


def build_control(
    *,
    preset: str | ActJepaSizes = "paper",
    action_dim: int,
    action_scale: Tensor | Sequence[float] | None = None,
    generator: Generator | None = None,
    **options: Any,
) -> ChunkObjective:
    """Behaviour cloning with the same encoder and decoder, without prediction of latents.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        action_dim: Width of an action.
        action_scale: Typical action size per axis, in its unit; without it, actions must be standardised.
        generator: Draws the initial weights; the same seed gives the same weights as `build`.
        **options: state_dim, state_mean and state_scale (per entry; without them, states must be standardised), encoder
            (by default the preset's), and parts of `ChunkObjective`: preprocess, augment, lessons.

    Raises:
        UnknownName: If there is no such preset.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    parts = _parts(sizes, action_dim=action_dim, action_scale=action_scale, **options)
    if generator is not None:
        _draw(_networks(parts), generator)
    return ChunkObjective(**parts)


def _parts(
    sizes: ActJepaSizes,
    *,
    action_dim: int,
    action_scale: Tensor | Sequence[float] | None,
    state_dim: int = 7,
    state_mean: Sequence[float] | None = None,
    state_scale: Sequence[float] | None = None,
    encoder: nn.Module | None = None,
    lessons: LessonRule | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """The parts shared by both systems."""
    lessons = lessons or sizes.lessons()
    encoder = encoder or sizes.encoder()
    width: Any = encoder.width
    parts.setdefault("preprocess", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    return {
        "encoder": encoder,
        "context": ContextEncoder(
            sizes.networks, state_dim=state_dim, picture_width=width, pictures=lessons.pictures
        ),
        "decoder": ActionChunk(sizes.networks, action_dim=action_dim),
        "lessons": lessons,
        "action_map": None if action_scale is None else ActionMap(torch.as_tensor(action_scale)),
        "state_map": None if state_scale is None else ActionMap(
            torch.as_tensor(state_scale), mean=None if state_mean is None else torch.as_tensor(state_mean)
        ),
        **parts,
    }  # fmt: skip


def _networks(parts: dict[str, Any]) -> list[nn.Module]:
    return [parts["encoder"], parts["context"], parts["decoder"]]


def _draw(networks: Sequence[nn.Module], generator: Generator) -> None:
    for network in networks:
        draw_weights(network, generator)
