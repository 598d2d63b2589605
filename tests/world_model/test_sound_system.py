"""Audio-JEPA: masks, what windows of sound are to it, and how a broken one looks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from jepa_mpc.encoders.layers.normed import Centred, UnbiasedNorm
from jepa_mpc.encoders.mel import LogMel, Waves
from jepa_mpc.encoders.sound_features import encode_wave
from jepa_mpc.errors import BadObservation, UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.masks.random_tokens import RandomTokens
from jepa_mpc.world_model.parts.sound_objective import heard
from jepa_mpc.world_model.parts.targets import SharedTarget, cosine_momentum
from jepa_mpc.world_model.recipes import audio_jepa
from jepa_mpc.world_model.training.health import CollapseMonitor
from tests.world_model.test_cloud_systems import fitted


def sounds(count: int = 16) -> torch.Tensor:
    """Tones of different pitch and loudness that fade, `B 2 400` at 2 kHz."""
    draw = generator(1, "sounds")
    pitch, loudness = 100 + 700 * torch.rand(count, 1, generator=draw), torch.rand(count, 1, generator=draw)
    begin = 0.2 * torch.rand(count, 1, generator=draw)
    moments = torch.arange(800) / 2000 - begin
    wave: Waves = loudness * (moments > 0) * (-8 * moments).exp() * (2 * math.pi * pitch * moments).sin()
    return (wave + 1e-3 * torch.randn(count, 800, generator=draw)).unflatten(1, (2, 400))


BATCH = {"sound": sounds()}


@torch.no_grad()
def latents(objective):
    return objective.encode(sounds()).flatten(2)


def test_a_healthy_one_keeps_its_spread_and_one_without_stop_gradient_is_told():
    broken, healthy = (audio_jepa.build(preset="tiny", generator=generator(0)) for _ in range(2))
    monitor = CollapseMonitor(latents(healthy.eval()))
    broken.target, broken.distance = SharedTarget(), SquaredError()
    found = monitor(latents(fitted(broken.train(), BATCH, steps=70, rate=1e-2)))
    assert found.collapsed and found.effective_rank < 1.1, found
    assert not monitor(latents(fitted(healthy.train(), BATCH, steps=40, rate=3e-3))).collapsed


@pytest.mark.parametrize("masks", sorted(audio_jepa.MASKS))
def test_every_sampler_hides_what_is_not_seen(masks):
    sampler, draw = audio_jepa.MASKS[masks]((1, 32, 6)), generator(3)
    blocks = 1 if masks == "random" else 3
    for _ in range(50):
        drawn = sampler(4, draw)
        assert drawn.targets.shape[1] == blocks and drawn.context.shape[1] > 0
        for seen, hidden in zip(drawn.context, drawn.targets.flatten(1), strict=True):
            assert not set(seen.tolist()) & set(hidden.tolist()) and int(max(seen.max(), hidden.max())) < 192


def test_random_masks_are_partitions_of_one_ratio_and_another_order_per_sample():
    sampler, lengths = RandomTokens(num_tokens=192), []
    for seed in range(300):
        masks = sampler(3, generator(seed))
        whole = torch.cat([masks.context, masks.targets[:, 0]], dim=1)
        assert torch.equal(whole.sort(dim=1).values, torch.arange(192).expand(3, -1))
        assert not torch.equal(whole[0], whole[1])
        lengths.append(masks.context.shape[1])
    assert min(lengths) >= 76 and max(lengths) <= 115 and abs(sum(lengths) / 300 - 95.5) < 5 * 11.2 / math.sqrt(300)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RandomTokens(num_tokens=9, ratio=(0.6, 1.0)), "must be a range .* between 0 and 1, got"),
        (lambda: RandomTokens(num_tokens=9, ratio=(0.6, 0.4)), "must be a range"),
        (lambda: RandomTokens(num_tokens=2, ratio=(0.4, 0.6)), "leaves nothing visible or nothing to predict"),
        (lambda: audio_jepa.build(preset="tiny", rate=30), "rate, frames, bands, hop, window and std must be positive"),
    ],
)
def test_settings_out_of_range_are_told_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UnknownName, match="unknown mask sampler 'tubes'; known: blocks, legacy_blocks, random"):
        audio_jepa.build(preset="tiny", masks="tubes")
    with pytest.raises(UnknownName, match="unknown target 'raw'; known: centred, plain, standardised"):
        audio_jepa.build(preset="tiny", target="raw")


def test_each_step_hears_the_window_up_to_it_and_the_last_one_all():
    sound = sounds(3)
    first, last = heard(sound)
    assert torch.equal(last, sound.flatten(1))
    assert bool((first[:, :400] == 0).all()) and torch.equal(first[:, 400:], sound[:, 0])
    objective = audio_jepa.build(preset="tiny", generator=generator(0)).eval()
    found = objective.encode(sound)
    assert found.shape == (3, 2, 12, 32) and torch.equal(found[:, 1], objective.published(sound.flatten(1)))
    later = sound.clone()
    later[:, 1] = 0.0
    assert torch.equal(objective.encode(later)[:, 0], found[:, 0]), "a step does not hear what comes after it"


def test_what_is_no_sound_is_told_in_one_sentence():
    objective = audio_jepa.build(preset="tiny", generator=generator(0))
    with pytest.raises(BadObservation, match=r"expected mono sound \(B, T, samples of a step\), got \(3, 400\)"):
        objective({"sound": sounds(3)[:, 0]}, generator(0))
    with pytest.raises(BadObservation, match="1 of 2400 samples are not finite"):
        objective({"sound": _spoiled()}, generator(0))
    with pytest.raises(BadObservation, match="the sound has no samples"):
        objective({"sound": torch.zeros(2, 2, 0)}, generator(0))
    with pytest.raises(ValueError, match="the batch must hold one of sound; it holds frames"):
        objective({"frames": torch.zeros(1)}, generator(0))


def _spoiled() -> torch.Tensor:
    sound = sounds(3)
    sound[1, 0, 7] = torch.inf
    return sound


def test_targets_are_standardised_with_the_variance_of_a_sample():
    x = torch.randn(2, 5, 8, generator=generator(4)) * 3 + 1
    found = UnbiasedNorm(eps=0.0)(x)
    assert torch.allclose(found.std(dim=-1), torch.ones(2, 5), atol=1e-5)
    assert torch.allclose(found.mean(dim=-1), torch.zeros(2, 5), atol=1e-6)
    assert torch.allclose(Centred()(x) / x.std(dim=-1, keepdim=True), found, atol=1e-5)


def test_the_momentum_rises_along_half_a_cosine():
    follow = cosine_momentum(0.9, 1.0)
    assert follow(0.0) == pytest.approx(0.9) and follow(0.5) == pytest.approx(0.95) and follow(1.0) == 1.0
    assert follow(0.25) < 0.925


@pytest.mark.parametrize(("preset", "tokens"), [("paper", 128), ("paper_512", 192)])
def test_published_forms_have_the_published_numbers_of_tokens(preset, tokens):
    with torch.device("meta"):
        objective = audio_jepa.build(preset=preset)
    assert math.prod(objective.encoder.native) == tokens and objective.predictor.sizes.depth == 6


def test_of_a_window_longer_than_a_spectrogram_the_end_is_heard():
    objective = audio_jepa.build(preset="tiny", generator=generator(0)).eval()
    step = objective.published.mel.sizes.samples // 2
    sound = torch.rand(2, 6, step, generator=generator(1))
    later = sound.clone()
    later[:, -1] = torch.rand(2, step, generator=generator(2))
    before, after = objective.encode(sound), objective.encode(later)
    assert torch.equal(before[:, :-1], after[:, :-1]) and not torch.equal(before[:, -1], after[:, -1])


@pytest.mark.parametrize(("extra", "clips"), [(-1, 1), (0, 1), (1, 1), (399, 1), (400, 2)])
def test_a_rest_without_a_frame_is_no_clip(extra, clips):
    encoder = audio_jepa.build(preset="tiny", generator=generator(0)).published
    sizes = replace(encoder.mel.sizes, window=400)
    encoder.mel = LogMel(sizes)
    wave = torch.rand(sizes.samples + extra, generator=generator(1))
    assert sizes.clips(len(wave)) == clips == len(encode_wave(wave, encoder))


def test_spectrograms_of_double_precision_agree():
    mel = audio_jepa.build(preset="tiny", generator=generator(0)).published.mel
    wave = torch.rand(2, 800, generator=generator(1))
    assert mel(wave.double()).dtype == torch.float64
    torch.testing.assert_close(mel(wave.double()).float(), mel(wave), atol=1e-3, rtol=1e-3)
