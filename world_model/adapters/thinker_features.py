"""Files of cached thinker features: the hidden states of one clip, and the frames they were computed from.

    old       (L, S, D)    states of prompt and images, from L layers of any vision-language model
    old_mask  (S)          bool, True where there is a token
    new       (L, S', D)   states of its output
    new_mask  (S')         bool
    frames    (K)          int64, indices of its input frames, counted as those of the window

A file without frame indices is refused, since it could contain information from the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from jepa_mpc.errors import BadEpisode
from jepa_mpc.world_model.parts.predictors.guidance import ThinkerFeatures

FIELDS = {"old": "(L, S, D)", "old_mask": "(S)", "new": "(L, S', D)", "new_mask": "(S')", "frames": "(K)"}


def save_features(path: str | Path, features: ThinkerFeatures) -> None:
    """Write the features of one clip.

    Args:
        path: A `.safetensors` file.
        features: Features of one world (B = 1).

    Raises:
        ValueError: If there are several worlds.
        OSError: If the file cannot be written.
    """
    if len(features.old) != 1:
        raise ValueError(f"a file holds the features of one clip, got {len(features.old)}: write one file for each")
    plain = {name: getattr(features, name)[0].detach().cpu().contiguous() for name in FIELDS}
    Path(path).write_bytes(safetensors.torch.save(plain))


def load_features(path: str | Path, *, last_observed: int) -> ThinkerFeatures:
    """Read the features of one clip (B = 1).

    Args:
        path: A file of `save_features`, or any file in the format above.
        last_observed: Index of the last frame that the thinker may have seen.

    Raises:
        BadEpisode: If the file cannot be read, a field is missing or of another shape, or an unmasked state is not
            finite.
        ValueError: If the thinker saw a later frame.
    """
    tensors = _read(Path(path))
    missing = [f"{name} {shape}" for name, shape in FIELDS.items() if name not in tensors]
    if missing:
        hint = " (without frame numbers nobody can tell whether the future was seen)" if "frames" not in tensors else ""
        raise BadEpisode(f"{path} holds {', '.join(tensors) or 'nothing'}; missing: {', '.join(missing)}{hint}")
    try:
        features = ThinkerFeatures(
            old=tensors["old"].float()[None],
            old_mask=tensors["old_mask"][None],
            new=tensors["new"].float()[None],
            new_mask=tensors["new_mask"][None],
            frames=tensors["frames"][None],
        )
    except ValueError as error:
        raise BadEpisode(f"{path} is no file of thinker features: {error}") from error
    for name in ("old", "new"):
        states, mask = getattr(features, name), getattr(features, f"{name}_mask")
        if not bool(torch.isfinite(states.transpose(1, 2)[mask]).all()):
            raise BadEpisode(f"{path}: {name} holds values that are not finite where {name}_mask is True")
    features.check_observed(last_observed)
    return features


def join_features(clips: Sequence[ThinkerFeatures]) -> ThinkerFeatures:
    """Concatenate the features of several clips as a batch, padded to the longest.

    Raises:
        ValueError: If there is none, or numbers of layers or widths differ.
    """
    kinds = {(one.layers, one.old.shape[3]) for one in clips}
    if len(kinds) != 1:
        raise ValueError(f"features to join must have one number of layers and one width, got {sorted(kinds)}")
    most = {name: max(getattr(one, name).shape[-1] for one in clips) for name in ("old_mask", "new_mask", "frames")}
    return ThinkerFeatures(
        old=torch.cat([_longer(one.old, most["old_mask"], axis=2) for one in clips]),
        old_mask=torch.cat([_longer(one.old_mask, most["old_mask"], axis=1) for one in clips]),
        new=torch.cat([_longer(one.new, most["new_mask"], axis=2) for one in clips]),
        new_mask=torch.cat([_longer(one.new_mask, most["new_mask"], axis=1) for one in clips]),
        frames=torch.cat([_repeated(one.frames, most["frames"]) for one in clips]),
    )


def as_batch(features: ThinkerFeatures) -> dict[str, Tensor]:
    """The batch entries that a `ThinkObjective` expects."""
    return {f"thinker_{name}": getattr(features, name) for name in FIELDS}


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadEpisode(f"{path} cannot be read as a safetensors file: {reason}") from error


def _longer(x: Tensor, length: int, *, axis: int) -> Tensor:
    """Pad with zeros (no token) up to `length`."""
    shape = list(x.shape)
    shape[axis] = length - shape[axis]
    return torch.cat([x, x.new_zeros(shape)], dim=axis)


def _repeated(frames: Tensor, length: int) -> Tensor:
    """Repeat the last frame index up to `length`."""
    if not frames.shape[1]:
        raise ValueError("features that do not say which frames were seen cannot be joined")
    return torch.cat([frames, frames[:, -1:].expand(-1, length - frames.shape[1])], dim=1)
