"""inspect_logs.py and convert.py: what they print and leave behind, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jepa_mpc.errors import BadEpisode, UnknownName
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.npz import NpzStore, episode_path
from jepa_mpc.trajectories.robots import guess_robot, robot_map
from jepa_mpc.trajectories.synthetic import synthetic_log
from tests.commands import command

ROOT = Path(__file__).resolve().parents[2]


def test_inspection_finds_the_format_and_leaves_a_report_and_pictures(tmp_path):
    LAYOUTS["robomimic"](NpzStore(synthetic_log(tmp_path / "npz", episodes=3)), tmp_path / "demo")
    done = command("inspect_logs", "path=demo.hdf5", "out=found", "frames=all", cwd=tmp_path, COLUMNS="160")
    assert done.returncode == 0, done.stderr
    for words in ("robomimic: 3 episodes, 27 steps", "4 Hz", "8 to 10 steps", "observation.ee_pose", "m, rad"):
        assert words in done.stdout
    left = {"preview.png", "preview.mp4", "report.json", "robot.yaml", "run.json"}
    assert {path.name for path in (tmp_path / "found").iterdir()} == left
    robot = robot_map(OmegaConf.to_container(OmegaConf.load(tmp_path / "found/robot.yaml")))
    assert robot == guess_robot(open_log(tmp_path / "demo.hdf5"))
    report = json.loads((tmp_path / "found/report.json").read_text())
    assert report["damaged"] == {} and "action: axes [3, 4, 5, 6] never change" in report["remarks"]


def test_a_corrected_map_and_files_of_others_are_kept(tmp_path):
    synthetic_log(tmp_path / "log", episodes=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    refused = command("inspect_logs", "path=log", "out=mine", cwd=tmp_path)
    assert refused.returncode == 1 and "holds files other than a run of inspect_logs" in refused.stderr
    assert command("inspect_logs", "path=log", "out=found", cwd=tmp_path).returncode == 0
    (tmp_path / "found/robot.yaml").write_text("hz: 7.0\n")
    again = command("inspect_logs", "path=log", "out=found", cwd=tmp_path)
    assert again.returncode == 0 and "robot.yaml is kept" in again.stdout
    assert (tmp_path / "found/robot.yaml").read_text() == "hz: 7.0\n"
    assert robot_map(OmegaConf.to_container(OmegaConf.load(tmp_path / "found/robot_guessed.yaml"))) == guess_robot(
        open_log(tmp_path / "log")
    )


def test_inspection_names_damaged_episodes_and_goes_on(tmp_path):
    folder = synthetic_log(tmp_path / "log", episodes=3)
    path = episode_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[data.index(b"observation.state.npy") + 400] ^= 1
    path.write_bytes(data)
    done = command("inspect_logs", "path=log", "out=found", cwd=tmp_path, COLUMNS="160")
    assert done.returncode == 1 and "1 of 3 episodes are damaged" in done.stderr
    assert "damaged episode 1: episode_000001.npz: field 'observation.state'" in " ".join(done.stdout.split())
    assert (tmp_path / "found/preview.png").exists()


def test_a_log_of_ours_becomes_lerobot_and_comes_back(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("av")
    synthetic_log(tmp_path / "npz", episodes=2)
    done = command("convert", "source=npz", "to=there", "frames=image", cwd=tmp_path)
    assert done.returncode == 0 and "2 episodes, 17 observations (lerobot)" in done.stdout, done.stderr
    done = command("convert", "source=there", "to=back", "format=npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert open_log(tmp_path / "back").lengths == [8, 9]
    again = command("convert", "source=there", "to=back", "format=npz", cwd=tmp_path)
    assert again.returncode == 1 and "already exists" in again.stderr


@pytest.mark.parametrize("change, message", [
    ({"source": "nowhere"}, "does not exist"),
    ({}, "none that is known"),
    ({"format": "rlds"}, "known: lerobot, npz, robomimic"),
])  # fmt: skip
def test_what_cannot_be_converted_is_refused(tmp_path, monkeypatch, change, message):
    from jepa_mpc.experiments.commands.convert import convert

    monkeypatch.chdir(tmp_path)
    options = OmegaConf.merge(OmegaConf.load(ROOT / "configs/convert.yaml"), {"source": ".", "to": "x", **change})
    with pytest.raises((BadEpisode, UnknownName), match=message):
        convert(options)


def test_a_refusal_is_one_sentence(tmp_path):
    done = command("convert", "source=nowhere", "to=x", cwd=tmp_path)
    assert done.returncode == 1 and "does not exist" in done.stderr and len(done.stderr.splitlines()) == 1
