"""Folders of clouds, of pictures and of sounds alone: each file is an episode."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from jepa_mpc.cloud_files import read_cloud
from jepa_mpc.clouds import farthest_points
from jepa_mpc.errors import BadEpisode
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.actions import NoActions
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.episode import CLOUDS, IMAGES, SOUND, Episode, make_episode, validate
from jepa_mpc.trajectories.formats import detect, open_log
from jepa_mpc.trajectories.formats.npz import read_episode, write_episode

ABOVE, CAMERA = IMAGES + "above", IMAGES + "camera"


def write_clouds(folder, *, sizes=(40, 60, 50)):
    """Clouds of those sizes; the last one lies in a subfolder."""
    draws = np.random.default_rng(0)
    clouds = [draws.standard_normal((size, 3)).astype(np.float32) for size in sizes]
    for index, cloud in enumerate(clouds):
        place = folder / "more" if index == len(sizes) - 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        np.savez(place / f"cloud_{index}.npz", points=cloud)
    return clouds


def write_pictures(folder, *, sizes=((16, 24), (16, 16), (20, 16))):
    """Pictures of those heights and widths."""
    draws = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [draws.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"picture_{index}.png")
    return pictures


def test_clouds_are_thinned_to_the_smallest_and_seen_from_above(tmp_path):
    clouds = write_clouds(tmp_path)
    log = open_log(tmp_path)
    assert detect(tmp_path) == "clouds" and list(log.lengths) == [1, 1, 1] and log.cameras == ("above",)
    found = [log.read(index, 0, 1, [CLOUDS, ABOVE]) for index in range(3)]
    assert np.array_equal(found[0][CLOUDS][0], clouds[0])
    assert np.array_equal(found[1][CLOUDS][0], clouds[1][farthest_points(clouds[1], 40)])
    assert all(one[ABOVE].shape == (1, 64, 64, 3) and one[ABOVE].max() == 255 for one in found)
    assert log.metadata(2) == {"file": "more/cloud_2.npz"}


def test_a_bank_of_clouds_gives_windows_of_them(tmp_path):
    clouds = write_clouds(tmp_path, sizes=(40,) * 6)
    bank = load_bank(tmp_path, actions=NoActions())
    batch = bank.sample(5, 1, generator=generator(0))
    assert batch[CLOUDS].shape == (5, 1, 40, 3) and batch["proprio"].shape == (5, 1, 0)
    assert all(
        np.array_equal(one[0].numpy(), clouds[k]) for one, k in zip(batch[CLOUDS], batch["episode"], strict=True)
    )


def test_pictures_of_several_sizes_become_squares_of_the_shortest_side(tmp_path):
    pictures = write_pictures(tmp_path)
    log = open_log(tmp_path)
    assert detect(tmp_path) == "pictures" and list(log.lengths) == [1, 1, 1] and log.cameras == ("camera",)
    cut, whole = (log.read(index, 0, 1, [CAMERA])[CAMERA][0] for index in range(2))
    assert np.array_equal(cut, pictures[0][:, 4:20]) and np.array_equal(whole, pictures[1])
    assert load_bank(tmp_path, actions=NoActions()).sample(2, 1, generator=generator(0))["frames"].shape[-1] == 16


def read_all(path):
    log = open_log(path)
    for index in range(len(log.lengths)):
        log.read(index, 0, max(log.lengths[index], 1), list(log.fields))


def test_damaged_files_are_named_with_their_remedy(tmp_path):
    write_clouds(tmp_path / "clouds")
    (tmp_path / "clouds/cloud_1.npz").write_bytes(b"PK no archive")
    with pytest.raises(
        BadEpisode, match=r"cloud_1.npz: episode 0?1?.*'clouds' is damaged .*restore it or move it away"
    ):
        read_all(tmp_path / "clouds")
    np.savez(tmp_path / "clouds/cloud_1.npz", points=np.full((40, 3), np.nan))
    with pytest.raises(BadEpisode, match="40 of 40 points that are not finite"):
        read_all(tmp_path / "clouds")
    write_pictures(tmp_path / "pictures")
    (tmp_path / "pictures/picture_2.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadEpisode, match=r"picture_2.png: episode 2: field 'picture' is damaged"):
        read_all(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    for name in ("clouds", "pictures"):
        with pytest.raises(BadEpisode, match="has no file; looked for"):
            open_log(tmp_path / "empty", format=name)


def test_an_episode_may_hold_clouds(tmp_path):
    draws = np.random.default_rng(2)
    cloud = draws.standard_normal((4, 20, 3)).astype(np.float32)
    frames = {"left": draws.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)}
    made = {"frames": frames, "proprio": draws.standard_normal((4, 14)), "actions": np.zeros((4, 7)), "dt_s": 0.1}
    write_episode(tmp_path / "episode_000000.npz", make_episode(**made, index=0, metadata={}, extras={CLOUDS: cloud}))
    kept = read_episode(tmp_path / "episode_000000.npz")
    assert np.array_equal(kept.arrays[CLOUDS], cloud)
    bank = load_bank(tmp_path)
    assert np.array_equal(bank.sample(1, 4, generator=generator(0))[CLOUDS][0], cloud)
    for bad, said in ((cloud[..., :2], "ending in 3"), (np.full_like(cloud, np.nan), "is not finite at step 0")):
        with pytest.raises(BadEpisode, match=f"field 'clouds' .*{said}"):
            validate(Episode(arrays={**kept.arrays, CLOUDS: bad}, metadata=kept.metadata), "here")


def write_sounds(folder, *, sizes=(500, 900, 1000), rate=2000):
    """Tones of those many samples; the last one lies in a subfolder."""
    waves = [np.sin(np.arange(size) * (1 + index) / 20).astype(np.float32) for index, size in enumerate(sizes)]
    for index, wave in enumerate(waves):
        place = folder / ("more" if index == len(waves) - 1 else "")
        place.mkdir(parents=True, exist_ok=True)
        wavfile.write(place / f"tone_{index}.wav", rate, wave)
    return waves


def test_sounds_are_cut_into_steps_and_the_last_is_filled_with_silence(tmp_path):
    waves = write_sounds(tmp_path)
    log = open_log(tmp_path)
    assert detect(tmp_path) == "sounds" and sorted(log.lengths) == [1, 2, 2] and log.dt_s == 0.25
    for index in range(3):
        wave = next(w for k, w in enumerate(waves) if f"tone_{k}" in log.metadata(index)["file"])
        found = log.read(index, 0, log.lengths[index], [SOUND, IMAGES + "loudness"])
        assert np.array_equal(found[SOUND].ravel()[: len(wave)], wave) and not found[SOUND].ravel()[len(wave) :].any()
        assert found[IMAGES + "loudness"].shape == (log.lengths[index], 32, 32, 3)


def test_a_bank_of_sounds_gives_windows_of_them(tmp_path):
    waves = write_sounds(tmp_path, sizes=(1000,) * 6)
    bank = load_bank(tmp_path, actions=NoActions())
    batch = bank.sample(5, 2, generator=generator(0))
    assert batch[SOUND].shape == (5, 2, 500) and batch["proprio"].shape == (5, 2, 0)
    assert all(any(np.array_equal(one.flatten(), wave) for wave in waves) for one in batch[SOUND])


def test_sounds_that_do_not_go_together_name_the_file(tmp_path):
    write_sounds(tmp_path)
    wavfile.write(tmp_path / "tone_1.wav", 8000, np.zeros(9, np.int16))
    with pytest.raises(BadEpisode, match=r"tone_1.wav: .*'sound' is damaged .*8000 samples per second, expected 2000"):
        read_all(tmp_path)
    wavfile.write(tmp_path / "tone_1.wav", 2000, np.zeros((9, 2), np.int16))
    with pytest.raises(BadEpisode, match=r"tone_1.wav .*has 2 channels, expected mono"):
        read_all(tmp_path)


def wave(rate, samples=64):
    head = struct.pack("<HHIIHH", 1, 1, rate, 0, 0, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", 2 * samples) + bytes(2 * samples)
    return b"RIFF" + bytes(4) + b"WAVE" + chunks


PLY = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
STRANGE = {
    "a.ply": (b"ply\n\nformat\nelement vertex\nend_header\n", "out of range"),
    "b.ply": (PLY + b"1_0 0 0\n", "underscore"),
    "c.ply": (PLY.replace(b"vertex 1", b"vertex 999999999") + b"1 0 0\n", "the file holds 1"),
    "d.wav": (wave(1), "expected 100 to 1000000 samples"),
    "e.wav": (wave(2**32 - 1), "expected 100 to 1000000 samples"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_files_are_told_in_one_sentence(tmp_path, name):
    data, said = STRANGE[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadEpisode, match=f"{name}: .* is damaged .*{said}"):
        open_log(tmp_path)


def test_a_text_of_points_is_read_in_blocks(tmp_path):
    points = np.random.default_rng(3).standard_normal((5000, 3)).astype(np.float32)
    lines = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in points.tolist())
    (tmp_path / "a.ply").write_bytes(PLY.replace(b"vertex 1", b"vertex 5000") + lines.encode())
    assert np.array_equal(read_cloud(tmp_path / "a.ply"), points)
