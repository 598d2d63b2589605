"""Kinds `audio_jepa`, `audio_jepa_mel` and `audio_jepa_random_mask_stats`: networks, losses, spectrograms and masks."""

from __future__ import annotations

import torch

from jepa_mpc.encoders.adapters.sounds import usual_spelling
from jepa_mpc.encoders.mel import LogMel, MelSizes
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.distances import CosineDistance, SmoothAbsoluteError
from jepa_mpc.world_model.parts.masks.random_tokens import RandomTokens
from jepa_mpc.world_model.recipes.audio_jepa import TARGETS
from tests.golden.cases import Case
from tests.golden.mask_statistics import agree
from tests.golden.placed import PlacedModel

LOSSES = {"norm_mse": CosineDistance(), "smooth_l1": SmoothAbsoluteError()}
THEIR_TARGETS = {"true": "standardised", "center": "centred", "false": "plain"}
MEL = (2e-4, 0.0)


def check(case: Case) -> None:
    meta = case.meta
    rows, columns = (size // patch for size, patch in zip(meta["input_size"], meta["patch_size"], strict=True))
    meta.setdefault("in_chans", 1)
    model = PlacedModel(case, (1, rows, columns), "column_first", spelled=usual_spelling)
    x = case.tensors["in.spectrograms"]
    model.check_networks(x, target="out.target_full")
    lists = ("context_masks", "prediction_masks")
    tasks = model.check_blocks(x, lists=lists, whole=model.target(x), target="out.target")
    for loss, distance in LOSSES.items():
        for theirs, ours in THEIR_TARGETS.items():
            model.finish = TARGETS[ours]()
            case.check(f"out.loss.{loss}.{theirs}", model.loss(x, tasks, distance=distance).total)
    model.finish = TARGETS["standardised"]()
    model.check_gradients(model.loss(x, tasks, distance=LOSSES["norm_mse"]))


def check_mel(case: Case) -> None:
    meta = case.meta
    assert meta["remove_dc_offset"] and meta["snip_edges"] and meta["round_to_power_of_two"] and meta["power"] == 2
    assert meta["dither"] == 0 and not meta["energy_column"]
    sizes = MelSizes(
        rate=meta["sample_rate"], frames=meta["target_time_bins"], bands=meta["n_mels"], window=meta["window_samples"],
        hop=meta["hop_samples"], low_hz=meta["f_min"], high_hz=meta["f_max"], preemphasis=meta["preemphasis"],
    )  # fmt: skip
    mel, waves = LogMel(sizes), case.tensors["in.waveform"][None]
    level = mel.level(waves)
    case.check("out.waveform_normalised", level)
    found = mel.frames(level)
    assert found.shape[1] == meta["frames"] and sizes.fft == meta["fft_size"]
    case.check("out.fbank", found, MEL)
    case.check("out.spectrogram", mel(waves), MEL)


def check_random_masks(case: Case) -> None:
    meta = case.meta
    low, high = meta["ratio"]
    sampler = RandomTokens(num_tokens=meta["num_tokens"], ratio=(low, high))
    stream, seen, sorted_lists = generator(0), [], 0
    for _ in range(meta["draws"]):
        masks = sampler(meta["batch_size"], stream)
        seen.append(float(masks.context.shape[1]))
        whole = torch.cat([masks.context, masks.targets[:, 0]], dim=1).sort(dim=1).values
        assert torch.equal(whole, torch.arange(meta["num_tokens"]).expand_as(whole)) == meta["partition_of_all_tokens"]
        sorted_lists += int((masks.context.diff(dim=1) > 0).all())
        assert len({tuple(row) for row in masks.context.tolist()}) == meta["batch_size"]
    assert sorted_lists == 0
    agree(case, "context_len", torch.tensor(seen), meta["context_len"], (meta["draws"], meta["draws"]))
