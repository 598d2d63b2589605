"""Preprocessing: which part of a picture is seen, at which grey levels, and what is refused."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels, TrainingPixels
from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(0))


def grey(normalised: torch.Tensor) -> torch.Tensor:
    """Back to 0..255."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return 255 * (normalised * std + mean)


def ramp(height: int, width: int) -> torch.Tensor:
    """Grey level = column."""
    return torch.arange(width, dtype=torch.uint8).expand(1, 3, height, width)


@pytest.mark.parametrize("prepare", [EvaluationPixels(48), RobotPixels(48), RobotPixels(48, ratio=(0.75, 1.35))])
@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 3, 90, 160), (1, 2, 3, 120, 80), (2, 6, 48, 48), (1, 3, 20, 30)])
def test_any_picture_becomes_a_normalised_square(prepare, shape):
    seen = prepare(frames(*shape))
    assert seen.shape == (*shape[:-2], 48, 48) and seen.dtype == torch.float32
    levels = grey(seen.unflatten(-3, (-1, 3)))
    assert levels.min() > -1e-3 and levels.max() < 255 + 1e-3


def test_the_robot_sees_a_square_picture_of_its_size_untouched():
    seen = frames(2, 3, 48, 48)
    torch.testing.assert_close(grey(RobotPixels(48)(seen)), seen.float(), atol=1e-3, rtol=0)


def test_the_robot_sees_the_central_square_or_a_squeezed_part_of_a_wide_picture():
    square = grey(RobotPixels(48)(ramp(48, 96)))[0, 0, 0]
    assert (square[0].round(), square[-1].round()) == (24, 71)
    squeezed = grey(RobotPixels(48, ratio=(0.75, 1.35))(ramp(48, 96)))[0, 0, 0]
    assert squeezed[0] < 17 and squeezed[-1] > 78  # 65 of 96 columns, 15 left out on the left


def test_a_picture_of_allowed_shape_is_squeezed_whole():
    seen = grey(RobotPixels(48, ratio=(0.75, 1.35))(ramp(48, 60)))[0, 0, 0]
    assert seen[0] < 1 and seen[-1] > 58


def test_the_evaluation_leaves_out_one_eighth_of_the_short_side():
    seen = grey(EvaluationPixels(224)(ramp(256, 256)))[0, 0, 0]
    assert (seen[0].round(), seen[-1].round()) == (16, 239)


@pytest.mark.parametrize(("crop", "short"), [(256, 292), (384, 438)])
def test_the_short_side_is_that_of_the_released_evaluations(crop, short):
    picture = frames(1, 3, short, short)
    margin = (short - crop) // 2
    seen = grey(EvaluationPixels(crop)(picture))
    torch.testing.assert_close(seen, picture[..., margin:-margin, margin:-margin].float(), atol=1e-3, rtol=0)


def test_resized_pictures_of_the_evaluation_have_whole_grey_levels_and_filtering_matters():
    picture = frames(1, 3, 200, 300)
    filtered, plain = (grey(EvaluationPixels(48, antialias=antialias)(picture)) for antialias in (True, False))
    for seen in (filtered, plain):
        torch.testing.assert_close(seen, seen.round(), atol=1e-3, rtol=0)
    assert filtered.std() < 0.5 * plain.std()  # a filter over four by four pixels of noise


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(3, 8, 8), "uint8 images with values from 0 to 255, got torch.float32"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "channels last"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), r"\(\.\.\., 3, h, w\), got \(1, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), "got"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "got"),
    ],
)
@pytest.mark.parametrize("prepare", [EvaluationPixels(48), RobotPixels(48)])
def test_other_pictures_are_refused(prepare, picture, message):
    with pytest.raises(BadObservation, match=message):
        prepare(picture)


def test_training_shows_one_random_part_per_clip_and_the_same_seed_the_same_parts():
    clips = ramp(60, 90).expand(6, 4, 3, 60, 90)
    seen, again = (TrainingPixels(32)(clips, generator(3)) for _ in range(2))
    assert seen.shape == (6, 4, 3, 32, 32) and torch.equal(seen, again)
    assert torch.equal(seen[:, 0], seen[:, 3])
    ends = grey(seen)[:, 0, 0, 0, [0, -1]]
    assert len({tuple(end.tolist()) for end in ends}) == 6


def test_parts_of_the_training_have_the_asked_area_and_shape_and_half_are_mirrored():
    rows = torch.arange(200, dtype=torch.uint8)[:, None].expand(200, 200)
    picture = torch.stack([rows, rows.T, rows])[None, None].expand(200, 1, 3, 200, 200)
    seen = grey(TrainingPixels(64)(picture, generator(0)))[:, 0]
    heights = seen[:, 0, -1, 0] - seen[:, 0, 0, 0]
    widths = seen[:, 1, 0, -1] - seen[:, 1, 0, 0]
    share, shape = heights * widths.abs() / 200**2, widths.abs() / heights
    assert 0.25 < share.min() < 0.4 and 0.8 < share.max() <= 1.0  # ends of a row are half a pixel inside the part
    assert 0.72 < shape.min() < 0.8 and 1.25 < shape.max() < 1.38
    assert 70 < (widths < 0).sum() < 130  # three standard deviations of a fair coin are 21


def test_a_part_that_never_fits_gives_way_to_the_middle():
    clips = ramp(48, 96)[None]
    never = TrainingPixels(48, scale=(1.777, 1.777), mirrored=0)(clips, generator(0))
    torch.testing.assert_close(never, RobotPixels(48, ratio=(0.75, 1.35))(clips))


def test_shapes_that_cross_are_refused():
    with pytest.raises(ValueError, match="smallest and largest"):
        RobotPixels(48, ratio=(2.0, 1.0))
    with pytest.raises(ValueError, match="must be ascending"):
        TrainingPixels(48, scale=(1.0, 0.3))
