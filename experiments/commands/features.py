"""Features of videos, images, clouds or sounds: `jepa-mpc features film.mp4 encoder=vjepa2_vitl hub=FILE to=FILE`.

Writes one safetensors file. The same command resumes a stopped run.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from jepa_mpc.errors import BadCheckpoint, BadEpisode, BadObservation, MissingPackage, UnknownName
from jepa_mpc.face.command_line import Stopped, check_complete
from jepa_mpc.face.encoders import EncoderChoice
from jepa_mpc.face.feature_files import FeatureSettings, write_features
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.places import CONFIGS

MISTAKES = (BadCheckpoint, BadEpisode, BadObservation, MissingPackage, UnknownName, ValueError, OSError)


def features(cfg: DictConfig) -> Path:
    """Encode, with a progress bar.

    Raises:
        Stopped: If it was interrupted; encoded rows are kept.
    """
    torch.set_num_threads(int(cfg.threads))
    choice = chosen(cfg)
    settings = FeatureSettings(frames=int(cfg.frames), batch=int(cfg.batch), dtype=str(cfg.dtype))
    with tqdm(unit="row", desc="encoding") as bar:

        def tell(done: int, rows: int) -> None:
            bar.total = rows
            bar.update(done - bar.n)

        try:
            return write_features(str(cfg.source), choice, str(cfg.to), settings=settings, progress=tell)
        except KeyboardInterrupt as stop:
            raise Stopped(f"after {bar.n} rows: run the same command to resume") from stop


def chosen(cfg: DictConfig) -> EncoderChoice:
    """The encoder that the options name.

    Raises:
        ValueError: If they name none, or two.
    """
    if bool(cfg.get("encoder")) == bool(cfg.checkpoint):
        raise ValueError("name one encoder: encoder=vjepa2_vitl hub=PLACE, or checkpoint=FOLDER")
    name, hub = (cfg.encoder.model, cfg.encoder.hub) if cfg.get("encoder") else (cfg.checkpoint, None)
    return EncoderChoice(name=str(name), hub=hub, image_size=cfg.image_size, device=device_of(str(cfg.device)))


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="features")
def main(cfg: DictConfig) -> None:
    """Encode, and print what was written and the time it took."""
    check_complete(cfg, name="features")
    began, busy = time.perf_counter(), time.process_time()
    try:
        written = features(cfg)
    except MISTAKES as error:
        sys.exit(f"features: {error}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    took = f"{time.perf_counter() - began:.1f} s, {time.process_time() - busy:.1f} s of processor time"
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB, {took}, peak memory {peak:.2f} GiB")
