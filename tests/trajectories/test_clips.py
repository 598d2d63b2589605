"""Folders of films alone: each film is an episode of pictures, without any other column."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("av")

from jepa_mpc.errors import BadEpisode
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.actions import NoActions
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.cache import CacheOptions, told
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats import detect, open_log
from jepa_mpc.trajectories.formats.videos import VideoEncoder
from jepa_mpc.trajectories.robots import MappedLog

CAMERA = IMAGES + "camera"


def write_clips(folder, *, sizes, rates=(10.0,)):
    """Films of 8, 9, ... frames of noise, every bit kept; the last one lies in a subfolder."""
    draws = np.random.default_rng(0)
    pictures = [draws.integers(0, 256, (8 + i, *size, 3), dtype=np.uint8) for i, size in enumerate(sizes)]
    for index, frames in enumerate(pictures):
        place = folder / "more" if index == len(sizes) - 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        fps = rates[index % len(rates)]
        with VideoEncoder(place / f"film_{index}.mp4", fps=fps, codec="h264_lossless") as film:
            film.write(frames)
    return pictures


def test_every_film_below_a_folder_is_an_episode(tmp_path):
    pictures = write_clips(tmp_path, sizes=[(16, 24)] * 3)
    log = open_log(tmp_path)
    assert detect(tmp_path) == "clips" and list(log.lengths) == [8, 9, 10]
    assert log.cameras == ("camera",) and log.dt_s == pytest.approx(0.1)
    assert all(np.array_equal(log.read(i, 2, 7, [CAMERA])[CAMERA], pictures[i][2:7]) for i in range(3))
    assert log.metadata(2) == {"film": "more/film_2.mp4"}


def test_films_of_several_sizes_become_squares_of_the_shortest_side(tmp_path):
    pictures = write_clips(tmp_path, sizes=[(16, 24), (32, 32)])
    log = open_log(tmp_path)
    cut, shrunk = (log.read(i, 0, 1, [CAMERA])[CAMERA][0] for i in range(2))
    assert np.array_equal(cut, pictures[0][0][:, 4:20])
    means = pictures[1][0].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - means).max() <= 1  # rows and columns are rounded one after the other


def test_films_of_several_rates_need_one_said(tmp_path):
    write_clips(tmp_path, sizes=[(16, 16)] * 2, rates=(10.0, 25.0))
    with pytest.raises(ValueError, match="how many steps it has per second"):
        load_bank(tmp_path, actions=NoActions())
    assert load_bank(tmp_path, actions=NoActions(), options=CacheOptions(robot=told({"hz": 5.0}))).dt_s == 0.2


def test_pictures_alone_give_windows_without_actions_or_proprioception(tmp_path):
    pictures = write_clips(tmp_path, sizes=[(16, 16)] * 3)
    batch = load_bank(tmp_path, actions=NoActions()).sample(4, 3, generator=generator(0), max_stride=2)
    assert batch["actions"].shape == (4, 2, 0) and batch["proprio"].shape == (4, 3, 0)
    film, frames = int(batch["episode"][0]), batch["frames"][0].numpy().transpose(0, 2, 3, 1)
    assert all(any(np.array_equal(frame, known) for known in pictures[film]) for frame in frames)
    with pytest.raises(ValueError, match="actions=none to learn from images alone"):
        load_bank(tmp_path)


def test_numbers_that_are_no_state_are_still_asked_for(tmp_path):
    pytest.importorskip("pyarrow")
    write_clips(tmp_path, sizes=[(16, 16)])
    (tmp_path / "more" / "film_0.csv").write_text("speed\n" + "1.0\n" * 8)
    assert detect(tmp_path) == "films" and "speed" in MappedLog(open_log(tmp_path)).fields
    with pytest.raises(ValueError, match="name its columns as state"):
        load_bank(tmp_path, actions=NoActions())


def test_damaged_films_are_told_together_and_a_folder_without_films_is_refused(tmp_path):
    write_clips(tmp_path / "films", sizes=[(16, 16)] * 2)
    whole = tmp_path / "films/film_0.mp4"
    whole.with_name("cut.mp4").write_bytes(whole.read_bytes()[:-100])
    whole.with_name("empty.mp4").touch()
    log = open_log(tmp_path / "films")
    assert list(log.damaged) == [0, 1] and list(log.lengths) == [0, 0, 8, 9]
    told = r"2 damaged among 4 \(cut\.mp4.*empty\.mp4.*restore them, or leave_out=\[0, 1\]"
    with pytest.raises(BadEpisode, match=told):
        load_bank(tmp_path / "films", actions=NoActions())
    bank = load_bank(tmp_path / "films", actions=NoActions(), options=CacheOptions(leave_out=(0, 1)))
    assert bank.offsets.tolist() == [0, 8, 17]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadEpisode, match="holds no video"):
        open_log(tmp_path / "nothing", format="clips")
