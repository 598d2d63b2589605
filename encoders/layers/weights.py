"""Weight initialisation from a passed generator, so that the same seed gives the same bits."""

from __future__ import annotations

import math

from torch import Generator, nn


def draw_weights(module: nn.Module, generator: Generator | None = None) -> nn.Module:
    """Reinitialise all weights of `module`, children before parents.

    Linear and convolution layers follow the framework's default (uniform within 1 / sqrt(fan_in)); a part with a
    special rule has a method `draw(generator)`, which runs after those of its children. The generator must be on the
    device of the weights.

    Args:
        module: The network, changed in place.
        generator: Source of randomness; None uses the global stream.

    Returns:
        The same module.
    """
    for part in reversed(list(module.modules())):
        draw = getattr(part, "draw", None)
        if draw is not None:
            draw(generator)
        elif isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            _draw_affine(part, generator)
    return module


def _draw_affine(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, generator: Generator | None) -> None:
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if layer.bias is not None:
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
