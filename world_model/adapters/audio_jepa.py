"""Released predictors of Audio-JEPA, stored with the encoders in the authors' checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from jepa_mpc.encoders.adapters.sounds import SECTIONS, encoder_tensors, read_tensors, sizes_of
from jepa_mpc.encoders.placed import column_first
from jepa_mpc.encoders.released_sounds import BASE, SOUND_RELEASES
from jepa_mpc.encoders.sound import mel_grid
from jepa_mpc.errors import BadCheckpoint, choose
from jepa_mpc.world_model.adapters import vjepa2
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, TablePlaces

PREFIX = SECTIONS[2]


def load_predictor(file: str | Path, *, model: str = "audio_jepa", heads: int = vjepa2.HEADS) -> MaskedPredictor:
    """The predictor of the authors' checkpoint, in evaluation mode.

    Args:
        file: `JEPA.ckpt`.
        model: A name of `SOUND_RELEASES`.
        heads: Attention heads, which the shapes do not determine.

    Raises:
        UnknownName: If there is no such release.
        BadCheckpoint: If the file cannot be read, has no predictor, or one that does not fit.
    """
    release, tensors = choose(SOUND_RELEASES, model, "encoder of sounds"), read_tensors(Path(file))
    weights = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    if not weights:
        raise BadCheckpoint(f"{file} holds an encoder and no predictor: take the authors' JEPA.ckpt")
    patches = sizes_of(encoder_tensors(tensors, which="encoder", source=str(file)), source=str(file), heads=heads)
    sizes = replace(vjepa2.sizes_of(vjepa2.numbered_masks(weights), heads=heads), eps=BASE.eps)
    places = TablePlaces(column_first(mel_grid(release.mel, patches), sizes.width))
    with torch.device("meta"):
        predictor = MaskedPredictor(sizes, places)
    vjepa2.fill_predictor(predictor, weights, title=f"the predictor of {file}")
    return predictor.eval()
