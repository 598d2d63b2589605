"""Image perception: observations to latents, with the encoder's training preprocessing; other inputs are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jepa_mpc.errors import BadObservation
from jepa_mpc.types import Frames, Latents, Observation

EncodeImages = Callable[[Tensor], Tensor]


class ImagePerception:
    """Encode uint8 camera frames with the preprocessing of the encoder's training.

        z = encoder((frames / 255 - mean) / std)

    No gradient is kept, a module is temporarily put into evaluation mode, and long inputs are encoded in chunks.

    Args:
        encoder: Maps images `G C h w` (C = 3 per camera) to tokens `G N D`.
        cameras: The cameras of its training, in the order of its channels.
        image_size: Height and width in pixels.
        mean: Mean of red, green and blue on the scale 0 to 1.
        std: Their standard deviation.
        prepare: Preprocesses uint8 images `G C h w` for the encoder, instead of `mean` and `std`.
        chunk: Images encoded together.
    """

    def __init__(
        self,
        encoder: EncodeImages,
        *,
        cameras: Sequence[str],
        image_size: tuple[int, int],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        prepare: Callable[[Tensor], Tensor] | None = None,
        chunk: int = 256,
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std must be three numbers each, std above 0, got {mean} and {std}")
        if not cameras or chunk < 1:
            raise ValueError(f"need at least one camera and chunk >= 1, got {tuple(cameras)} and {chunk}")
        self.encoder, self.prepare = encoder, prepare
        self.cameras = tuple(cameras)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.chunk = chunk
        self._mean = torch.tensor(mean).repeat(len(self.cameras))[:, None, None]
        self._std = torch.tensor(std).repeat(len(self.cameras))[:, None, None]

    def __call__(self, observation: Observation) -> Latents:
        """Encode every frame: uint8 `B T C h w` -> latents `B T N D`.

        Raises:
            BadObservation: If dtype, number of axes, cameras, channels or size differ from the encoder's.
        """
        self.check(observation)
        batch, times = observation.frames.shape[:2]
        with torch.no_grad(), _evaluating(self.encoder):
            parts = [self.encoder(self._scaled(part)) for part in observation.frames.flatten(0, 1).split(self.chunk)]
        return torch.cat(parts).unflatten(0, (batch, times))  # (B, T, N, D)

    def check(self, observation: Observation) -> None:
        """Refuse observations that do not match the encoder's training.

        Raises:
            BadObservation: Names what was expected and what came.
        """
        frames = observation.frames
        if not isinstance(frames, Tensor):
            raise BadObservation(f"frames must be a torch tensor, got {type(frames).__name__}: use torch.from_numpy")
        if frames.dtype != torch.uint8:
            raise BadObservation(f"frames must be uint8 from 0 to 255, got {frames.dtype}{_range(frames)}")
        if frames.dim() != 5:
            raise BadObservation(f"frames must have the five axes B T C h w, got shape {tuple(frames.shape)}")
        if 0 in frames.shape:
            raise BadObservation(f"frames are empty: shape {tuple(frames.shape)}")
        if tuple(observation.cameras) != self.cameras:
            raise BadObservation(
                f"the encoder was trained with cameras {self.cameras}, got an image of {tuple(observation.cameras)}"
            )
        if frames.shape[2] != 3 * len(self.cameras):
            raise BadObservation(
                f"expected C = {3 * len(self.cameras)} channels (RGB of {len(self.cameras)} cameras), got "
                f"{frames.shape[2]}{_channel_hint(frames, self.cameras)}"
            )
        if tuple(frames.shape[3:]) != self.image_size:
            height, width = self.image_size
            raise BadObservation(
                f"expected frames of {height} x {width} pixels, got {frames.shape[3]} x {frames.shape[4]}: render or "
                "resize them to that size"
            )

    def _scaled(self, frames: Frames) -> Tensor:
        if self.prepare is not None:
            return self.prepare(frames)
        mean, std = (number.to(frames.device) for number in (self._mean, self._std))
        return (frames.float() / 255 - mean) / std


class StatePerception:
    """Passes a simulator state through as a latent of one token: the observation's proprioception `B T P` is the state.

    It lets the same agent plan with true dynamics.
    """

    def __call__(self, observation: Observation) -> Latents:
        """`B T P` -> latents `B T 1 P`.

        Raises:
            BadObservation: If there is no proprioception, or it is not finite or not `B T P`.
        """
        state = observation.proprio
        if state is None or state.dim() != 3:
            got = "none" if state is None else f"shape {tuple(state.shape)}"
            raise BadObservation(f"the observation must carry the state as proprioception B T P, got {got}")
        if not bool(state.isfinite().all()):
            raise BadObservation("the state holds values that are not finite")
        return state[:, :, None]


@contextmanager
def _evaluating(encoder: EncodeImages) -> Iterator[None]:
    """Evaluation mode for the duration of a block; each part's mode is restored afterwards."""
    training = [part for part in encoder.modules() if part.training] if isinstance(encoder, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _range(frames: Tensor) -> str:
    """A hint about an image of another dtype."""
    if not frames.is_floating_point() or frames.numel() == 0:
        return ""
    low, high = frames.aminmax()
    found = f" with values from {float(low):.3g} to {float(high):.3g}"
    return found + (": multiply by 255 and round" if float(low) >= 0 and float(high) <= 1 else ": convert to uint8")


def _channel_hint(frames: Tensor, cameras: tuple[str, ...]) -> str:
    known = {len(cameras): " (grayscale?)", 4 * len(cameras): " (with transparency? drop it)"}
    if frames.shape[-1] == 3 * len(cameras):
        return " (channels last? move them before the height)"
    return known.get(frames.shape[2], "")
