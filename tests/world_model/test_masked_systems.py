"""I-JEPA, V-JEPA and H-JEPA as systems: their targets, presets, levels, collapse, and what masked encoders cost."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from jepa_mpc.encoders.attentive import AttentiveProbe
from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.encoders.placed import PlacedForm, even_thirds, time_half
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadObservation, UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.distances import PowerError, SquaredError
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective
from jepa_mpc.world_model.parts.predictors.pyramid import TopDownPredictor
from jepa_mpc.world_model.parts.targets import EMATarget, SharedTarget
from jepa_mpc.world_model.recipes import RECIPES, hjepa_pyramid, ijepa, vjepa
from jepa_mpc.world_model.recipes.variants import hjepa_legacy
from jepa_mpc.world_model.training.health import CollapseMonitor, Health
from jepa_mpc.world_model.training.loop import FitSettings
from jepa_mpc.world_model.training.schedules import CosineRise, Stretched, WarmupCosine

SYSTEMS = {"ijepa": ijepa.build, "vjepa": vjepa.build, "hjepa_pyramid": hjepa_pyramid.build}
SIDE, TIMES = 28, 4


def scene(seed: int, worlds: int) -> dict[str, torch.Tensor]:
    """A bright spot at a place of its own in every frame, on noise."""
    draw = generator(seed)
    place = 2 * torch.rand(worlds, TIMES, 2, generator=draw) - 1
    axis = torch.linspace(-1, 1, SIDE)
    far = (axis - place[..., 0, None, None]) ** 2 + (axis[:, None] - place[..., 1, None, None]) ** 2
    noise = 0.3 * torch.rand(worlds, TIMES, SIDE, SIDE, generator=draw)
    return {"frames": (255 * (0.7 * torch.exp(-8 * far) + noise)).to(torch.uint8)[:, :, None].repeat(1, 1, 3, 1, 1)}


def trained(objective: MaskedObjective, *, steps: int) -> Health:
    """The state of its latents after some steps, beside those at the start."""
    held = scene(999, 16)["frames"]
    monitor = CollapseMonitor(objective.eval().encode(held).flatten(2))
    optimiser = torch.optim.AdamW(objective.train().parameters(), lr=3e-3)
    for step in range(steps):
        loss = objective(scene(step, 8), generator(1, step)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step((step + 1) / steps)
    return monitor(objective.eval().encode(held).flatten(2))


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_healthy_training_shows_no_sign_of_collapse(name):
    health = trained(SYSTEMS[name](preset="tiny", generator=generator(0)), steps=40)
    assert not health.collapsed and health.std_ratio > 0.25 and health.effective_rank > 5


@pytest.mark.parametrize("name", ["ijepa", "vjepa"])
def test_a_target_that_shares_the_encoder_and_its_gradient_is_told(name):
    objective = SYSTEMS[name](preset="tiny", generator=generator(0))
    objective.target = SharedTarget()  # no average, no stop-gradient, no norm
    assert any("deviation" in sign for sign in trained(objective, steps=100).signs)


class SharedLevels(SharedTarget):
    """The encoder's own view of the whole, with the cells of the coarser levels."""

    def __init__(self, pyramid: TokenPyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, x: torch.Tensor, online: torch.Tensor | None) -> torch.Tensor:
        return self.pyramid(super().forward(x, online))


@pytest.mark.parametrize(("apart", "collapses"), [("vicreg", False), ("none", True)])
def test_without_a_teacher_a_regulariser_keeps_latents_apart_and_its_absence_is_told(apart, collapses):
    objective = hjepa_pyramid.build(preset="tiny", apart=apart, generator=generator(0))
    finish = objective.target.finish
    assert isinstance(finish, nn.Sequential) and isinstance(finish[0], TokenPyramid)
    objective.target = SharedLevels(finish[0])
    assert trained(objective, steps=50).collapsed == collapses


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_target_starts_as_the_encoder_and_moves_by_the_momentum(name):
    objective = SYSTEMS[name](preset="tiny", momentum=(0.9, 1.0), generator=generator(0))
    target = objective.target
    assert isinstance(target, EMATarget)
    before = {key: value.clone() for key, value in target.encoder.state_dict().items()}
    assert all(torch.equal(value, before[key]) for key, value in objective.encoder.state_dict().items())
    with torch.no_grad():
        for weight in objective.encoder.parameters():
            weight.add_(1.0)
    objective.after_step(0.5)  # momentum 0.95
    for key, value in target.encoder.named_parameters():
        assert torch.allclose(value, before[key] + 0.05, atol=1e-5)


def test_presets_of_the_design_document_differ_where_they_say():
    assert isinstance(ijepa.build(preset="small_l2").distance, SquaredError)
    tubes = vjepa.build(preset="small_tubes")
    assert isinstance(tubes.distance, SquaredError) and [task.name for task in tubes.inputs[0].tasks] == ["tubes"]
    hints = [task.hints for task in vjepa.build(preset="small").inputs[0].tasks]
    assert hints == [{"mask_token": 0}, {"mask_token": 1}]


@pytest.mark.parametrize(("name", "preset", "weights"), [("ijepa", "huge", 631), ("vjepa", "large", 305)])
def test_published_sizes_have_as_many_weights_as_published(name, preset, weights):
    with torch.device("meta"):
        objective = SYSTEMS[name](preset=preset)
    count = sum(weight.numel() for weight in objective.encoder.state_dict().values())  # with the table of places
    assert round(count / 1e6) == weights


@pytest.mark.parametrize("name", SYSTEMS)
def test_unknown_presets_and_sizes_that_patches_do_not_fill_are_refused(name):
    with pytest.raises(UnknownName, match="known: "):
        SYSTEMS[name](preset="enormous")
    with pytest.raises(ValueError, match="not divisible into patches of 7 px"):
        SYSTEMS[name](preset="tiny", image=30)
    objective = SYSTEMS[name](preset="tiny")
    with pytest.raises(
        ValueError, match=r"set \+\+system.image and \+\+system.frames to those of the data|are made for images of"
    ):
        objective({"frames": torch.zeros(2, 4, 3, 42, 42, dtype=torch.uint8)}, generator(0))
    with pytest.raises(BadObservation, match="sides divisible by 7"):
        objective({"frames": torch.zeros(2, 4, 3, 30, 30, dtype=torch.uint8)}, generator(0))


def test_a_picture_encoder_refuses_clips():
    encoder = PlacedForm(image=32)(VideoSizes(width=16, depth=1, heads=2, mlp_dim=32, patch=8, tubelet=1))
    with pytest.raises(BadObservation, match="takes single images: expected 1 time, got 3"):
        encoder(torch.zeros(1, 3, 3, 32, 32))


def test_tables_of_clips_tell_every_place_apart():
    for table in (even_thirds, time_half):
        rows = table((3, 4, 5), 24)
        assert rows.shape == (60, 24) and len(torch.unique(rows.round(decimals=4), dim=0)) == 60
    assert even_thirds((1, 2, 2), 20).shape == (4, 20)


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_what_is_said_of_a_coarse_cell_changes_the_answer_below_it(fusion):
    objective = hjepa_pyramid.build(preset="tiny_fpn", generator=generator(0))
    inner = objective.predictor
    assert isinstance(inner, TopDownPredictor)
    predictor = TopDownPredictor(inner.predictor, inner.pyramid, width=16, fusion=fusion)
    seen, at = torch.randn(1, 3, 32, generator=generator(1)), torch.tensor([[0, 1, 2]])
    wanted = torch.tensor([[10, 15]])
    before = predictor(seen, at, wanted, level=0)
    with torch.no_grad():
        predictor.lateral[1][0].weight.mul_(-1)
    assert before.shape == (1, 2, 32) and not torch.allclose(before, predictor(seen, at, wanted, level=0))
    with pytest.raises(ValueError, match="fusion must be 'add' or 'concat'"):
        TopDownPredictor(inner.predictor, inner.pyramid, width=16, fusion="mix")  # type: ignore[arg-type]


def test_a_masked_encoder_computes_seen_tokens_alone():
    encoder = PlacedForm(image=224)(VideoSizes(width=64, depth=3, heads=2, mlp_dim=256, patch=8, tubelet=1)).eval()
    x = torch.randn(2, 3, 224, 224, generator=generator(0))
    few = torch.arange(0, 784, 8).expand(2, -1)  # an eighth

    def seconds(keep: torch.Tensor | None) -> float:
        times = []
        for _ in range(3):
            begin = time.process_time()
            with torch.no_grad():
                encoder(x, keep)
            times.append(time.process_time() - begin)
        return min(times)

    seconds(None)
    assert seconds(few) < 0.5 * seconds(None)  # a sixth when measured alone; slack for a busy machine


def test_hidden_tokens_do_not_reach_the_encoder():
    objective = ijepa.build(preset="tiny", generator=generator(0)).eval()
    x, keep = torch.randn(1, 1, 3, 28, 28, generator=generator(1)), torch.tensor([[0, 1, 4]])
    changed = x.clone()
    changed[..., 14:, :] = 7.0  # the lower half, of which nothing is seen
    assert torch.equal(objective.encoder(x, keep), objective.encoder(changed, keep))


def test_schedules_are_those_of_the_published_trainings():
    settings = FitSettings(steps=100, weight_decay=0.4, decay_schedule=CosineRise(0.1))
    shares = [0.4 * settings.decay_share_at(step) for step in (0, 49, 99)]
    assert shares == pytest.approx([0.04, 0.22, 0.4], abs=1e-3)
    rise = WarmupCosine(warmup=0.5, initial=0.2, final=0.001)
    assert rise(0, 100) == pytest.approx(0.2 + 0.8 / 50) and rise(49, 100) == pytest.approx(1.0)
    cut = Stretched(WarmupCosine(warmup=0.1), 1.25)
    assert cut(99, 100) == WarmupCosine(warmup=0.1)(99, 125) > 0.1
    for wrong in (lambda: CosineRise(-0.1), lambda: Stretched(CosineRise(), 0.5), lambda: WarmupCosine(initial=2.0)):
        with pytest.raises(ValueError, match="initial|factor"):
            wrong()


def test_an_attentive_probe_reads_which_token_is_marked_and_bad_powers_are_refused():
    probe = AttentiveProbe(16, heads=2, outputs=3)
    assert probe(torch.randn(4, 9, 16, generator=generator(0))).shape == (4, 3)
    with pytest.raises(ValueError, match="power must be positive"):
        PowerError(0.0)


def test_every_new_system_is_registered():
    assert set(SYSTEMS) | {"hjepa_legacy"} <= set(RECIPES)


def test_the_public_pyramid_says_which_images_it_takes():
    objective = hjepa_legacy.build(preset="tiny", generator=generator(0))
    side = objective.encoder.sizes.image
    with pytest.raises(BadObservation, match=f"expected images of {side} x {side}, got {2 * side} x {2 * side}"):
        objective.levels(torch.zeros(2, 3, 2 * side, 2 * side), torch.ones(2, 4, dtype=torch.bool))


def test_two_cameras_are_told_to_be_one():
    with pytest.raises(BadObservation, match=r"\(2 cameras: this takes one, such as cameras=\[left\]\)"):
        vjepa.build(preset="tiny").encoder(torch.zeros(2, 4, 6, 28, 28))
