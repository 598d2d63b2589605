"""Bytes of logs of every format overwritten, cut out, doubled and mixed: only the project's own errors come out."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("mcap_ros2")

from jepa_mpc.seeding import numpy_generator
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.formats.videos import VideoEncoder
from jepa_mpc.trajectories.synthetic import synthetic_log
from tests.trajectories.corruption import LIMIT_S, copy, drop_checksums, files_of, judge, pick, size_of

EVERYDAY, FULL = 5, 150


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    place = tmp_path_factory.mktemp("sound")
    ours = NpzStore(synthetic_log(place / "npz", episodes=2))
    made = {name: write(ours, place / name) for name, write in LAYOUTS.items()}
    with VideoEncoder(place / "clips/a.mp4", fps=4, codec="h264") as film:
        film.write(ours.read(0, 0, 8, ["observation.images.left"])["observation.images.left"])
    return made | {
        "npz": ours.path, "clips": place / "clips", "pictures": write_lerobot(ours, place / "pictures", frames="image"),
    }  # fmt: skip


def overwritten(data, draws):
    for _ in range(int(draws.integers(1, 20))):
        data[int(draws.integers(len(data)))] = int(draws.integers(256))


def claimed(data, draws):
    """A number of 2, 4 or 8 bytes becomes a large one."""
    size, at = pick(draws, [2, 4, 8]), int(draws.integers(len(data)))
    data[at : at + size] = pick(draws, [b"\xff", b"\x7f", b"\x00"]) * size


def removed(data, draws):
    at = int(draws.integers(len(data)))
    del data[at : at + int(draws.integers(1, 200))]


def doubled(data, draws):
    at = int(draws.integers(len(data)))
    data[at:at] = data[at : at + int(draws.integers(1, 200))]


def moved(data, draws):
    at, to, size = (int(draws.integers(len(data))) for _ in range(3))
    data[to : to + size // 4] = data[at : at + size // 4]


CHANGES = (overwritten, claimed, removed, doubled, moved)


def fuzz(name, number, logs, place):
    draws = numpy_generator(11, name, number)
    broken = copy(logs[name], place / f"{name}-{number}")
    drop_checksums(broken)
    file = pick(draws, files_of(broken))
    data = bytearray(file.read_bytes())
    pick(draws, CHANGES)(data, draws)
    file.write_bytes(data)
    answer, seconds, more = judge(broken)
    case = f"{name} {number} ({file.name}): {answer[:300]}"
    assert not answer.startswith("crash"), case
    assert not answer.startswith("refused") or "field '" in answer, case
    assert more <= 2 * size_of(broken) + (256 << 20), f"{more >> 20} MB, {case}"
    assert seconds < LIMIT_S, f"{seconds:.1f} s, {case}"
    shutil.rmtree(broken.parent)


NAMES = [*LAYOUTS, "npz", "clips", "pictures"]


@pytest.mark.parametrize("name", NAMES)
def test_changed_bytes_are_read_or_refused(name, logs, tmp_path):
    for number in range(EVERYDAY):
        fuzz(name, number, logs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_changed_bytes_are_read_or_refused(name, logs, tmp_path):
    for number in range(EVERYDAY, FULL):
        fuzz(name, number, logs, tmp_path)
