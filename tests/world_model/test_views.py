"""LeJEPA: views and their centre, the regulariser of each view, collapse without it, and changes of photographs."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.augment import Augmentation
from jepa_mpc.world_model.parts.crops import RandomCrop
from jepa_mpc.world_model.parts.objectives.views import ToCentre, Views, each_picture
from jepa_mpc.world_model.parts.photometric import Blur, Grey, Solarise, Sometimes, StandardJitter, grey
from jepa_mpc.world_model.recipes import lejepa
from jepa_mpc.world_model.training.health import CollapseMonitor


def frames(count: int = 16, *, size: int = 28) -> torch.Tensor:
    """Coloured blobs in different places, uint8 `B 1 3 h w`."""
    draw = generator(1, "frames")
    place, colour = torch.rand(count, 2, generator=draw), 255 * torch.rand(count, 3, 1, 1, generator=draw)
    axis = torch.linspace(0, 1, size)
    away = (axis - place[:, :1, None]) ** 2 + (axis[:, None] - place[:, 1:, None]) ** 2
    return (colour * torch.exp(-30 * away)[:, None]).to(torch.uint8)[:, None]


def fitted(objective, *, steps: int = 40):
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    for step in range(steps):
        optimiser.zero_grad()
        loss = objective({"frames": frames()}, generator(2, step))
        loss.total.backward()
        optimiser.step()
    return loss.terms


@torch.no_grad()
def test_without_its_regulariser_the_projections_collapse_and_are_told():
    healthy, broken = (lejepa.build(preset="tiny", generator=generator(0), **more) for more in ({}, {"weight": 0.0}))
    monitor = CollapseMonitor(torch.randn(16, 16, generator=generator(3)))
    with torch.enable_grad():
        kept, lost = fitted(healthy), fitted(broken)
    assert float(lost["sigreg"]) > 0.9 * 0.40 * 16  # the value of a constant: 0.40 times the samples
    assert float(kept["sigreg"]) < 0.7 * float(lost["sigreg"])
    found = monitor(broken.eval().compared(frames()))
    assert found.dead_share == 1.0 and found.collapsed
    assert not monitor(healthy.eval().compared(frames())).collapsed


def test_the_centre_is_that_of_all_views_or_of_the_first():
    projected = torch.randn(4, 8, 5, generator=generator(0))
    assert torch.allclose(ToCentre()(projected), projected.var(dim=0, correction=0).mean(), atol=1e-6)
    gap = projected - projected[:2].mean(dim=0)
    assert torch.allclose(ToCentre(first=2)(projected), gap.square().mean(), atol=1e-6)
    assert torch.allclose(ToCentre(first=2, others=True)(projected), gap[2:].square().mean(), atol=1e-6)
    with pytest.raises(ValueError, match="a centre needs at least one view"):
        ToCentre(first=0)


def test_views_of_several_sizes_pass_one_encoder():
    crops = [
        Views(change=Augmentation([RandomCrop(area=(0.3, 1.0), size=28)]), count=2),
        Views(change=Augmentation([RandomCrop(area=(0.1, 0.3), size=14)]), count=3),
    ]
    objective = lejepa.build(preset="tiny", views=crops, agreement=ToCentre(first=2), generator=generator(0))
    assert objective.project(each_picture(frames(4)), generator(1)).shape == (5, 4, 16)
    assert objective({"frames": frames(4)}, generator(1)).total.isfinite()


def test_every_moment_and_camera_is_a_picture():
    window = torch.arange(2 * 3 * 6).view(2, 3, 6, 1, 1)
    assert torch.equal(each_picture(window)[1].flatten(), torch.tensor([3.0, 4.0, 5.0]))
    assert each_picture(window).shape == (12, 3, 1, 1)
    with pytest.raises(BadObservation, match="3 channels per camera, got 4 channels"):
        each_picture(torch.zeros(1, 1, 4, 2, 2))


def test_the_backbone_is_published_without_its_projector():
    objective = lejepa.build(preset="tiny", generator=generator(0)).eval()
    assert objective.published is objective.encoder
    assert objective.encode(frames(2)).shape == (2, 1, 16, 32)
    with pytest.raises(BadObservation, match=r"with sides divisible by 7, got \(2, 3, 30, 30\)"):
        objective.encode(frames(2, size=30))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lejepa.build(preset="tiny", weight=1.5), "must be from 0 to 1, got 1.5"),
        (lambda: Views(change=lambda x, g: x, count=0), "at least one view of each kind, got 0"),
        (
            lambda: lejepa.build(preset="tiny", views=[Views(change=lambda x, g: x, count=1)]),
            "views can only agree if there are at least two",
        ),
        (lambda: Sometimes(1.5, Grey()), "a share is from 0 to 1, got 1.5"),
        (lambda: Blur(narrowest=0.0), "0 < narrowest <= widest"),
    ],
)
def test_settings_out_of_range_are_told_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


PICTURES = torch.rand(4, 1, 2, 3, 12, 10, generator=generator(5))


@pytest.mark.parametrize("change", [StandardJitter(), Grey(), Blur(), Solarise(), Sometimes(0.5, Grey())])
def test_changes_keep_shape_and_range_and_repeat_with_the_seed(change):
    out = change(PICTURES, generator(6))
    assert out.shape == PICTURES.shape and out.min() >= 0 and out.max() <= 1 + 1e-6
    assert torch.equal(out, change(PICTURES, generator(6))) and not torch.equal(out, PICTURES)


def test_each_change_does_what_it_says():
    assert torch.allclose(Grey()(PICTURES, generator(0)), grey(PICTURES).expand_as(PICTURES))
    still = StandardJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    assert torch.allclose(still(PICTURES, generator(0)), PICTURES, atol=1e-5)
    hue = StandardJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.05)
    dull = 0.5 + 0.1 * (PICTURES - 0.5)  # far from the limits
    assert torch.allclose(grey(hue(dull, generator(0))), grey(dull), atol=2e-3)
    assert torch.equal(Solarise(above=0.5)(PICTURES, generator(0)), torch.where(PICTURES < 0.5, PICTURES, 1 - PICTURES))
    assert torch.allclose(Blur()(torch.ones_like(PICTURES), generator(0)), torch.ones_like(PICTURES), atol=1e-5)
    assert Blur(narrowest=2.0)(PICTURES, generator(0)).std() < 0.5 * PICTURES.std()
    chosen = Sometimes(0.5, Grey())(torch.rand(500, 1, 1, 3, 2, 2, generator=generator(1)), generator(2))
    plain = (chosen[:, 0, 0, 0] == chosen[:, 0, 0, 1]).all(dim=(-1, -2)).float().mean()
    assert 0.4 < float(plain) < 0.6
