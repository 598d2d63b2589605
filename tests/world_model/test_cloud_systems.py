"""Point-JEPA and 3D-JEPA: what is shared with the teacher, what the decoder sees, and how a broken one looks."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.errors import BadObservation, UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.cloud_changes import Scale, Subsample, Turn, published_changes
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.predictors.cloud_places import CloudPlaces
from jepa_mpc.world_model.parts.predictors.context_aware import ContextAwarePredictor
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes
from jepa_mpc.world_model.parts.targets import SharedTarget
from jepa_mpc.world_model.recipes import jepa_3d, point_jepa
from jepa_mpc.world_model.training.health import CollapseMonitor

RECIPES = {"point_jepa": point_jepa.build, "jepa_3d": jepa_3d.build}


def clouds(count: int = 16, *, points: int = 32) -> torch.Tensor:
    """Blobs of different sizes in different places, `B 1 G 3`."""
    draw = generator(1, "clouds")
    size, place = torch.rand(count, 1, 1, 3, generator=draw), torch.randn(count, 1, 1, 3, generator=draw)
    return 0.2 * size * torch.randn(count, 1, points, 3, generator=draw) + 0.3 * place


def fitted(objective, batch, *, steps: int, rate: float):
    optimiser = torch.optim.AdamW([w for w in objective.parameters() if w.requires_grad], lr=rate)
    for step in range(steps):
        optimiser.zero_grad()
        objective(batch, generator(2, step)).total.backward()
        optimiser.step()
        objective.after_step(step / steps)
    return objective.eval()


BATCH = {"clouds": clouds()}


@torch.no_grad()
def latents(objective):
    return objective.encode(clouds()).flatten(2)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_healthy_one_keeps_its_spread_and_one_without_stop_gradient_is_told(name):
    broken, healthy = (RECIPES[name](preset="tiny", generator=generator(0)) for _ in range(2))
    monitor = CollapseMonitor(latents(healthy.eval()))
    broken.target, broken.distance = SharedTarget(), SquaredError()
    found = monitor(latents(fitted(broken.train(), BATCH, steps=70, rate=1e-2)))
    assert found.collapsed and found.cosine > 0.999, found
    assert not monitor(latents(fitted(healthy.train(), BATCH, steps=40, rate=3e-3))).collapsed


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_teacher_follows_the_blocks_and_shares_the_neighbourhoods(name):
    objective = RECIPES[name](preset="tiny", generator=generator(0))
    copied = dict(objective.target.encoder.named_parameters())
    assert copied.keys() == dict(objective.encoder.named_parameters()).keys()
    assert all(torch.equal(copied[key], weight) for key, weight in objective.encoder.named_parameters())
    assert objective.published.tokens is objective.inputs[0].prepare
    assert objective.published.trunk is objective.target.encoder


def test_every_layer_of_the_decoder_sees_the_context():
    sizes = MaskedSizes(inputs=12, outputs=12, width=8, depth=3, heads=2, mlp_dim=16, mask_tokens=1)
    torch.manual_seed(0)
    decoder = ContextAwarePredictor(sizes, CloudPlaces(8, hidden=8)).eval()
    seen, wanted_at = torch.randn(2, 5, 12), torch.randn(2, 4, 3)
    whole = decoder(seen, torch.randn(2, 5, 3), wanted_at)
    for block in decoder.blocks:
        weight = block.cross.output.weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
            assert not torch.allclose(decoder(seen, wanted_at, wanted_at), whole, atol=1e-4)
            weight.copy_(kept)
    assert torch.equal(decoder(seen, torch.zeros(2, 5, 3), wanted_at), whole)  # seen tokens carry their places already


def test_windows_of_several_moments_are_clouds_of_their_own():
    objective = point_jepa.build(preset="tiny", generator=generator(0)).eval()
    window = clouds(4).unflatten(0, (2, 2)).flatten(1, 2)  # (2, 2, G, 3)
    assert torch.equal(objective.encode(window).flatten(0, 1)[:, None], objective.encode(clouds(4)))
    with pytest.raises(BadObservation, match=r"expected point clouds \(B, T, G, 3\), got \(4, 32, 3\)"):
        objective({"clouds": clouds(4)[:, 0]}, generator(0))
    with pytest.raises(ValueError, match="the batch must hold one of clouds; it holds frames"):
        objective({"frames": torch.zeros(1)}, generator(0))


def test_changes_keep_the_shape_and_do_what_they_say():
    cloud = clouds(50)[:, 0]
    draw = generator(3)
    assert Subsample(10)(cloud, draw).shape == (50, 10, 3) and Subsample(99)(cloud, draw).shape == (50, 32, 3)
    scaled = Scale(mirror=("x",))(cloud, draw) / cloud
    assert torch.allclose(scaled, scaled[:, :1].expand_as(scaled), atol=1e-4)
    assert scaled.abs().min() > 0.79 and scaled.abs().max() < 1.21
    assert 0.2 < (scaled[:, 0, 0] < 0).float().mean() < 0.8 and (scaled[..., 1:] > 0).all()
    turned = Turn(up="z")(cloud, draw)
    assert torch.equal(turned[..., 2], cloud[..., 2]) and not torch.allclose(turned, cloud)
    assert torch.allclose(turned.norm(dim=-1), cloud.norm(dim=-1), atol=1e-5)
    assert published_changes(points=16)(cloud, draw).shape == (50, 16, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Subsample(0), "at least one point"),
        (lambda: Scale(low=0.0), "0 < low <= high"),
        (lambda: Turn(up="w"), "up must be x, y or z, got 'w'"),
        (lambda: point_jepa.build(preset="tiny", target=(0.2, 1.2)), "target must be a range"),
        (lambda: jepa_3d.build(preset="tiny", context=(0.0, 0.5)), "context must be a range"),
    ],
)
def test_settings_out_of_range_are_told_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UnknownName, match="unknown mask sampler 'balls'; known: legacy_runs, runs"):
        point_jepa.build(preset="tiny", masks="balls")


@pytest.mark.parametrize("build", [point_jepa.build, jepa_3d.build])
@pytest.mark.parametrize("target", [0.2, [0.1, 0.2, 0.3], "ab", ["low", "high"]])
def test_a_range_is_a_pair_of_numbers(build, target):
    with pytest.raises(ValueError, match="target must be a range"):
        build(preset="tiny", target=target)


def test_clouds_too_large_to_be_centred_are_refused():
    objective = point_jepa.build(preset="tiny", generator=generator(0)).eval()
    with pytest.raises(BadObservation, match="not finite, or too large"):
        objective.published.tokens.grouped(torch.full((1, 64, 3), 1e300, dtype=torch.float64))
