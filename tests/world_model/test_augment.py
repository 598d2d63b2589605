"""Augmentation: the motion stays, the colours go, and the seed decides."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.augment import (
    Apart,
    Augmentation,
    ColourJitter,
    Patches,
    SensorNoise,
    Shapes,
    Together,
    UnevenLight,
    ViewJitter,
)
from tests import tiny

SIZE = tiny.SIZE
CHANGES = {
    "colour": ColourJitter(),
    "view": ViewJitter(stretch=1.2),
    "patches": Patches(),
    "shapes": Shapes(),
    "light": UnevenLight(),
    "noise": SensorNoise(),
}


def still_window(*, worlds: int = 3, times: int = 4, cameras: int = 2) -> torch.Tensor:
    """Smooth pictures `B T V 3 h w` in [0, 1] that show the same in every frame, camera and world."""
    x = torch.linspace(-1, 1, SIZE)
    bump = torch.exp(-8 * ((x - 0.2) ** 2 + (x[:, None] + 0.1) ** 2))
    return (0.2 + 0.6 * bump).expand(worlds, times, cameras, 3, SIZE, SIZE).contiguous()


@pytest.fixture
def whole() -> Augmentation:
    return Augmentation(list(CHANGES.values()))


def test_the_same_seed_gives_the_same_bits(whole):
    frames = tiny.frames()
    assert torch.equal(whole(frames, generator(1)), whole(frames, generator(1)))
    assert not torch.equal(whole(frames, generator(1)), whole(frames, generator(2)))


def test_shape_range_and_input_are_kept(whole):
    frames = tiny.frames()
    before = frames.clone()
    changed = whole(frames, generator(1))
    assert changed.shape == frames.shape and changed.is_floating_point() and torch.equal(frames, before)
    assert changed.min() >= 0 and changed.max() <= 255 and changed.std() > 10


def test_without_changes_pictures_stay_as_they_are():
    frames = tiny.frames()
    torch.testing.assert_close(Augmentation([])(frames, generator(0)), frames.float())


def test_the_global_stream_is_left_alone(whole):
    state = torch.get_rng_state()
    whole(tiny.frames(), generator(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["view", "patches", "shapes"])
def test_what_moves_the_picture_moves_all_frames_of_a_window_alike(name):
    changed = CHANGES[name](still_window(), generator(0))
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))
    assert not torch.allclose(changed, still_window(), atol=0.01)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_cameras_and_worlds_are_changed_independently(name):
    changed = CHANGES[name](still_window(), generator(0))
    assert not torch.allclose(changed[:, :, 0], changed[:, :, 1], atol=0.01)
    assert not torch.allclose(changed[0], changed[1], atol=0.01)


def test_colours_differ_between_the_frames_of_a_window():
    changed = ColourJitter()(still_window(), generator(0))
    gaps = (changed[:, 1:] - changed[:, :-1]).abs().amax(dim=(-3, -2, -1))
    assert gaps.min() > 0.02


def test_colours_change_without_moving_an_edge():
    """Each picture stays a function of the grey level alone, so that its level lines stay where they were."""
    window = still_window()
    changed = ColourJitter()(window, generator(0)).flatten(-2)
    level = window.flatten(-2)[0, 0, 0, 0]
    order = level.argsort()
    same = level[order].diff() == 0
    assert same.any()
    assert (changed[..., order].diff(dim=-1)[..., same].abs() < 1e-5).all()


def test_a_moved_view_keeps_differences_between_frames():
    """A blob that moves between two frames still moves, by the turned and scaled amount."""
    window = still_window(times=2)
    window[:, 1] = window[:, 1].roll(4, dims=-1)
    changed = ViewJitter(scale=1.2, turn_rad=0.07)(window, generator(0))
    moved = _centre(changed[:, 1]) - _centre(changed[:, 0])
    length = moved.norm(dim=-1) / (4 * 2 / SIZE)
    assert (length > 1 / 1.3).all() and (length < 1.3).all()  # the bump's far tail leaves the picture: 10 % slack
    assert (moved[..., 1].abs() < 0.12 * moved[..., 0]).all()


def test_patches_are_plain_and_small():
    patches = Patches(count=1, largest=0.2)
    changed = patches(torch.full((6, 2, 2, 3, SIZE, SIZE), 0.5), generator(0))
    covered = (changed != 0.5).any(dim=3).flatten(3).float().mean(-1)
    assert 0 < covered.max() <= (0.2 + 2 / SIZE) ** 2
    assert len(changed[0, 0, 0].flatten(1).unique(dim=1).T) <= 2


def test_the_strength_can_be_turned_down_to_nothing():
    window = still_window()
    calm = [
        ColourJitter(mixing=0, curve=0, permute=0),
        ViewJitter(shift=0, scale=1, turn_rad=0),
        Patches(count=0),
        Shapes(count=0),
    ]
    calm.append(UnevenLight(strength=0.0))
    for change in calm:
        torch.testing.assert_close(change(window, generator(0)), window, atol=1e-5, rtol=0)


def _centre(views: torch.Tensor) -> torch.Tensor:
    """Where the bump is: (x, y) of the mass above the background, in [-1, 1]."""
    mass = (views[..., 0, :, :] - 0.25).clamp_min(0)
    x = torch.linspace(-1, 1, SIZE)
    total = mass.sum(dim=(-2, -1))
    return torch.stack([(mass.sum(-2) @ x) / total, (mass.sum(-1) @ x) / total], dim=-1)


def test_noise_differs_in_strength_between_frames_and_cameras_and_stays_below_its_bound():
    window = still_window()
    spread = (SensorNoise(strongest=0.1)(window, generator(0)) - window).std(dim=(-3, -2, -1)).flatten()
    assert spread.max() < 0.11 and spread.min() < 0.04 and spread.unique().numel() == spread.numel()


def test_stretching_changes_the_height_of_things_alone():
    window = still_window(worlds=16, times=1, cameras=1)
    stretched = ViewJitter(shift=0, scale=1, turn_rad=0, stretch=1.5)(window, generator(0))
    rows, columns = (lambda v: (v[:, 0, 0, 0, :, SIZE // 2], v[:, 0, 0, 0, SIZE // 2]))(stretched)
    assert rows.std(dim=0).max() > 10 * columns.std(dim=0)[SIZE // 4 : -SIZE // 4].min()


def test_shapes_are_as_many_and_as_large_as_allowed_and_have_two_shades():
    plain = torch.full((64, 1, 1, 3, SIZE, SIZE), 0.5)
    changed = Shapes(count=1, largest=0.4)(plain, generator(0))
    covered = (changed != 0.5).any(dim=3).flatten(1).float().mean(-1)
    assert 0.3 < (covered > 0).float().mean() < 0.7  # none or one, by chance
    assert covered.max() <= (0.4 + 2 / SIZE) ** 2
    colours = [len(picture.flatten(1).unique(dim=1).T) for picture in changed[:, 0, 0]]
    assert max(colours) == 3  # of the background and the two sides


def test_shapes_without_a_size_are_refused():
    for smallest, largest in ((0.0, 0.3), (0.3, 0.2)):
        with pytest.raises(ValueError, match=f"0 < smallest <= largest, got {smallest} and {largest}"):
            Shapes(smallest=smallest, largest=largest)


def test_uneven_light_is_a_gain_alike_for_all_channels_and_within_its_bound():
    window = still_window()
    gain = UnevenLight(strength=0.3)(0.5 * window, generator(0)) / (0.5 * window)
    torch.testing.assert_close(gain, gain[..., :1, :, :].expand_as(gain))
    assert gain.max() < 1.36 and gain.min() > 0.73 and gain.std() > 0.02
    assert not torch.allclose(gain[:, 0], gain[:, 1], atol=0.01)


def test_a_change_is_drawn_once_for_all_images_of_a_window_or_anew_for_each():
    views = still_window(worlds=2)
    alike, anew = Together(ColourJitter())(views, generator(1)), Apart(Shapes())(views, generator(1))
    assert alike.shape == anew.shape == views.shape
    assert torch.equal(alike[:, 1:], alike[:, :1].expand_as(alike[:, 1:])) and not torch.equal(alike[0], alike[1])
    assert not torch.equal(anew[:, 0], anew[:, 1])
    kept = Together(lambda pictures, stream: pictures)(views, generator(1))
    assert torch.equal(kept, views)
