"""Films appear whole or not at all, and drawing leaves its input alone."""

from __future__ import annotations

import builtins
import math

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from jepa_mpc.errors import MissingPackage
from jepa_mpc.reporting import video
from jepa_mpc.reporting.drawing import gamma_of, with_gamma
from jepa_mpc.reporting.video import (
    VideoWriter,
    draw_crosshair,
    draw_path,
    enlarge,
    label_strip,
    panels,
    save_gif,
    save_picture,
    save_video,
    sparkline,
)


def film(num_frames=5, height=32, width=48):
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    frames = []
    for index in range(num_frames):
        frame = np.zeros((height, width, 3), dtype=np.uint8)
        frame[..., 0], frame[..., 1] = ramp, 255 * index // num_frames
        frames.append(frame)
    return frames


def test_a_film_is_read_back_with_every_frame_and_close_colours(tmp_path):
    frames = film()
    save_video(frames, tmp_path / "film.mp4", fps=5)
    back = iio.imread(tmp_path / "film.mp4", plugin="FFMPEG")
    assert back.shape == (5, 32, 48, 3)
    assert np.abs(back.astype(float) - np.stack(frames)).mean() < 12  # lossy, and colour at half resolution


def test_odd_sizes_are_padded_to_even(tmp_path):
    save_video(film(height=31, width=45), tmp_path / "film.mp4", fps=5)
    assert iio.imread(tmp_path / "film.mp4", plugin="FFMPEG").shape[1:3] == (32, 46)


def test_an_error_while_filming_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="arm"), VideoWriter(tmp_path / "film.mp4", 5) as writer:
        writer.write(film()[0])
        raise RuntimeError("the arm fell off")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_older_film_as_it_was(tmp_path):
    save_video(film(), tmp_path / "film.mp4", fps=5)
    before = (tmp_path / "film.mp4").read_bytes()
    with pytest.raises(ValueError, match="the same size"), VideoWriter(tmp_path / "film.mp4", 5) as writer:
        writer.write(film()[0])
        writer.write(film(height=16)[0])
    assert (tmp_path / "film.mp4").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_film_that_lost_frames_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(video._encoder(), "count_frames_and_secs", lambda path: (3, 1.0))
    with pytest.raises(OSError, match="3 of 5 frames"):
        save_video(film(), tmp_path / "film.mp4", fps=5)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_sentence(tmp_path, monkeypatch):
    def refuse(path):
        raise RuntimeError("moov atom not found")

    monkeypatch.setattr(video._encoder(), "count_frames_and_secs", refuse)
    with pytest.raises(OSError, match="is the disk full"):
        save_video(film(), tmp_path / "film.mp4", fps=5)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_dies_is_an_os_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError), VideoWriter(tmp_path / "film.mp4", 1e-9) as writer:
        for frame in film(400, 128, 128):
            writer.write(frame)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_film_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "film.mp4", 5):
        pass
    with pytest.raises(ValueError, match="no frame"):
        save_gif([], tmp_path / "film.gif", fps=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "fps"), [("film.avi", 5), ("film.mp4", 0)])
def test_unusable_settings_are_refused(tmp_path, name, fps):
    with pytest.raises(ValueError, match="need a path"):
        VideoWriter(tmp_path / name, fps)


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), None]
)
def test_a_frame_of_another_kind_is_refused_by_name(tmp_path, frame):
    with pytest.raises(ValueError, match="uint8 image"), VideoWriter(tmp_path / "film.mp4", 5) as writer:
        writer.write(frame)


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackage, match="imageio-ffmpeg"):
        save_video(film(), tmp_path / "film.mp4", fps=5)


def test_a_gif_keeps_frames_and_takes_the_wanted_width(tmp_path):
    save_gif(film(), tmp_path / "film.gif", fps=5, width=24)
    with Image.open(tmp_path / "film.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (5, (24, 16), 200)


def test_a_picture_is_read_back_bit_for_bit(tmp_path):
    save_picture(film()[2], tmp_path / "a" / "picture.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "picture.png")), film()[2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda image: draw_path(image, [(4, 4), (20, 20), (40, 8)]),
        lambda image: draw_crosshair(image, (20, 16)),
        lambda image: label_strip(image, "lab", "3 cm"),
        lambda image: sparkline(image, [0.3, 0.2, 0.1], total=5),
        lambda image: enlarge(image, 64),
        lambda image: panels([("a", image), ("b", image)], height=40),
    ],
)
def test_drawing_changes_a_copy_only(draw):
    image = film()[0]
    before = image.copy()
    after = draw(image)
    assert np.array_equal(image, before)
    assert after.dtype == np.uint8
    assert after.shape != image.shape or not np.array_equal(after, image)


def test_a_path_is_bold_at_its_start_and_faint_at_its_end():
    image = np.zeros((20, 100, 3), dtype=np.uint8)
    drawn = draw_path(image, [(5 + 9 * step, 10) for step in range(11)], colour=(255, 255, 255), width=3)
    assert drawn[10, 8, 0] > 200
    assert 20 < drawn[10, 88, 0] < 120


def test_points_behind_the_camera_are_left_out():
    image = film()[0]
    assert np.array_equal(draw_crosshair(image, (math.nan, 3)), image)
    assert np.array_equal(draw_path(image, [(math.nan, math.nan), (math.inf, 3)]), image)
    assert np.array_equal(draw_path(image, []), image)


def test_panels_keep_the_shape_of_each_picture():
    wide, square = np.zeros((20, 40, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)
    joined = panels([("camera", wide), ("goal", square)], height=60, gap=4)
    assert joined.shape == (60 + 22 + 8, 4 + 120 + 4 + 60 + 4, 3)


def test_a_curve_without_any_finite_distance_is_an_empty_strip():
    image = np.zeros((40, 300, 3), np.uint8)
    assert sparkline(image, [math.nan], total=3).shape == (84, 300, 3)


def test_nearly_black_pictures_are_brightened_and_others_are_not():
    chance = np.random.default_rng(0)
    dark = chance.integers(0, 8, (32, 32, 3), dtype=np.uint8)
    usual = chance.integers(0, 200, (32, 32, 3), dtype=np.uint8)
    assert gamma_of(usual) == 1 and with_gamma(usual, 1) is usual
    seen = with_gamma(dark, gamma_of(dark))
    assert 60 <= np.quantile(seen, 0.95) <= 120 and seen[dark == 0].max() == 0
    assert gamma_of(np.zeros((8, 8, 3), np.uint8)) < 1
