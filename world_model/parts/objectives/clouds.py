"""The masked loss on point clouds: tokens are neighbourhoods with coordinates as positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.clouds import picked
from jepa_mpc.encoders.points import CloudTokens, PointEncoder, PointTokens, PointTransformer
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Batch
from jepa_mpc.types import Latents, Masks, State
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream

CLOUDS = "clouds"


class CloudStream(Stream):
    """Clouds `B T G 3`, every time step separately, cut into neighbourhoods by a network trained with the encoder.

    Args:
        tasks: All mask tasks; a sampler gets the number of clouds.
        tokens: Cuts clouds into neighbourhoods.
        augment: Augments clouds `B G 3` in training mode, or None.
    """

    def __init__(self, tasks: Sequence[MaskTask], *, tokens: PointTokens, augment: Change | None = None) -> None:
        super().__init__(CLOUDS, tasks, prepare=tokens, augment=augment, num_tokens=tokens.sizes.groups)

    def take(self, batch: Batch, generator: Generator) -> CloudTokens:
        """The tokens of all clouds of a batch."""
        clouds: CloudTokens = super().take({CLOUDS: flat_clouds(batch[CLOUDS])}, generator)
        return clouds

    def places(self, x: CloudTokens, at: Tensor) -> Annotated[Tensor, "B L 3"]:
        """Coordinates of the tokens with indices `B L`."""
        return picked(x.centres, at)


class BallStream(CloudStream):
    """The same, with samplers that get the centres of the neighbourhoods `B N 3`."""

    def hide(self, task: MaskTask, x: CloudTokens, generator: Generator) -> Masks:
        """The masks of a task for the neighbourhoods x."""
        return task.sampler(x.centres, generator)  # type: ignore[arg-type]


class CloudObjective(MaskedObjective):
    """The masked loss with a stream of clouds; its arguments are those of `MaskedObjective`."""

    main_input = CLOUDS
    """Input of `encode`, by its name in the log."""

    @property
    def published(self) -> nn.Module:
        """Clouds to the target's tokens; the neighbourhood network is the online one, as in training."""
        tokens, trunk = self.inputs[0].prepare, super().published
        assert isinstance(tokens, PointTokens) and isinstance(trunk, PointTransformer)
        return PointEncoder(tokens, trunk)

    def encode(self, frames: Annotated[Tensor, "B T G 3"]) -> Latents:
        """The target's tokens of each cloud: `B T G 3` to `B T N D`.

        Raises:
            BadObservation: If clouds have another shape or too few points.
        """
        return self.published(flat_clouds(frames)).unflatten(0, frames.shape[:2])


def flat_clouds(clouds: Annotated[Tensor, "B T G 3"]) -> Annotated[Tensor, "B G 3"]:
    """All time steps as separate samples.

    Raises:
        BadObservation: If these are not clouds.
    """
    if clouds.dim() != 4 or clouds.shape[-1] != 3:
        raise BadObservation(f"expected point clouds (B, T, G, 3), got {tuple(clouds.shape)}")
    return clouds.flatten(0, 1)


def mean_of_normed(layers: Sequence[int]) -> _Layers:
    """A target readout: the mean of some blocks' outputs, each layer-normed without weights.

    Args:
        layers: Blocks, counted from 0; negative ones from the end.
    """
    return _Layers(tuple(layers))


class _Layers:
    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers = layers

    def __call__(self, encoder: nn.Module, x: CloudTokens) -> State:
        assert isinstance(encoder, PointTransformer)
        depth = len(encoder.blocks)
        streams = encoder.streams(x, at=[layer % depth for layer in self.layers])
        return torch.stack([nn.functional.layer_norm(one, one.shape[-1:]) for one in streams]).mean(dim=0)
