"""collect.py: the log does not depend on the number of workers, goes on after a signal, and keeps to its settings."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.envs.robots import UR5E
from jepa_mpc.errors import BadCheckpoint, Busy, UnknownName
from jepa_mpc.face.collection.lab_recording import Collection, record, record_one, settle
from jepa_mpc.face.collection.lab_recording import collect as collect_log
from jepa_mpc.files import only_writer, write_json
from jepa_mpc.places import CHECKPOINTS, CONFIGS
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.recording import publish_staged
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from tests import tiny
from tests.commands import command

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["labs=2", "episodes=2", "steps=3", "image_size=16"]
PLAN = Collection(
    labs=2, episodes=2, steps=3, image_size=16, cameras=("left", "right"), split="train", lab_seed=0, seed=0
)


def start(folder, *overrides):
    command = [sys.executable, str(ROOT / "experiments/collect.py"), f"out={folder}", *SMALL, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, cwd=folder.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(worker):
    out, err = worker.communicate(timeout=120)
    return worker.returncode, out, err


def collect(folder, *overrides):
    return command("collect", f"out={folder}", *SMALL, *overrides, cwd=folder.parent)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.npz")}


@pytest.mark.render
def test_a_stopped_log_goes_on_and_equals_one_that_ran_through(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    done = collect(whole, "workers=1")
    assert done.returncode == 0 and "4 episodes, 16 observations" in done.stdout, done.stderr
    worker = start(stopped, "workers=2", "labs=50")
    deadline = time.monotonic() + 90
    while not list(stopped.glob("*.npz")) and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    code, _, err = finish(worker)
    assert code == 130 and "the same command continues it" in err and not (stopped / "manifest.json").exists()
    count = len(NpzStore(stopped))
    (stopped / "collect.json").unlink()
    done = collect(stopped, "workers=1", f"labs={max(2, (count + 3) // 2)}")
    assert done.returncode == 0, done.stderr
    assert digests(whole).items() <= digests(stopped).items()
    store = NpzStore(whole)
    assert store.metadata(3)["lab_index"] == 1 and store.metadata(3)["lab"]["split"] == "train"
    assert len(json.loads((whole / "manifest.json").read_text())["episodes"]) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "stopped"}


def test_other_settings_are_not_mixed_into_a_log(tmp_path):
    settle(replace(PLAN, steps=4), tmp_path)
    settle(PLAN, tmp_path)  # nothing was recorded with the first ones
    (tmp_path / "episode_000000.npz").touch()
    with pytest.raises(ValueError, match=r"steps=3 \(asked for 4\)"):
        settle(replace(PLAN, steps=4), tmp_path)


def test_more_labs_extend_a_log_and_fewer_are_refused(tmp_path):
    settle(PLAN, tmp_path)
    (tmp_path / "episode_000000.npz").touch()
    settle(replace(PLAN, labs=5), tmp_path)
    with pytest.raises(ValueError, match="holds 5 labs"):
        settle(PLAN, tmp_path)


def test_settings_written_by_hand_are_read(tmp_path):
    write_json(tmp_path / "collect.json", {**asdict(PLAN), "cameras": ["left", "right"]})
    (tmp_path / "episode_000000.npz").touch()
    settle(PLAN, tmp_path)


@pytest.mark.parametrize("name", ["labs", "episodes", "steps"])
def test_nothing_to_record_is_refused(name):
    with pytest.raises(ValueError, match=name):
        replace(PLAN, **{name: 0})


def test_a_log_that_does_not_name_its_robot_is_of_the_default_one(tmp_path):
    settle(PLAN, tmp_path)
    (tmp_path / "episode_000000.npz").touch()
    known = json.loads((tmp_path / "collect.json").read_text())
    assert known.pop("robot") == "panda"
    write_json(tmp_path / "collect.json", known)
    settle(PLAN, tmp_path)
    with pytest.raises(ValueError, match=r"robot=panda \(asked for ur5e\)"):
        settle(replace(PLAN, robot="ur5e"), tmp_path)


@pytest.mark.render
def test_pushes_are_heard_and_say_what_they_were(tmp_path, renderable):
    plan = replace(PLAN, task="push", sound={"materials": ["glass"]}, steps=8, cameras=("left",))
    for index in (0, 1):
        record_one(plan, tmp_path, index)
    publish_staged(tmp_path, 0)
    log = NpzStore(tmp_path)
    facts = [log.metadata(index) for index in (0, 1)]
    assert facts[0]["env"] == "push-v1" and facts[0]["materials"]["block"] == "glass"
    assert facts[0]["materials"] == facts[1]["materials"] and facts[0]["size"] == facts[1]["size"], "one lab, one block"
    heard = log.read(0, 0, 9, ["sound", "sound_labels", "observation.object_yaw"])
    assert heard["observation.object_yaw"].shape == (9, 1) and abs(heard["observation.object_yaw"][0, 0]) < 1e-3
    assert heard["sound"].shape == (9, 3840) and heard["sound_labels"].shape == (9, 5)
    assert not heard["sound_labels"][0, [0, 2, 3, 4]].any(), "nothing has moved yet"
    assert (heard["sound_labels"][heard["sound_labels"][:, 2] > 0, 4] >= 1).all()
    record_one(plan, tmp_path / "again", 0)
    again = NpzStore(tmp_path / "again/.staging").read(0, 0, 9, ["sound"])
    assert np.array_equal(again["sound"], heard["sound"])


@pytest.mark.parametrize("task", ["reach", "push", "pick"])
def test_tasks_are_chosen_from_the_command_line(task):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        assert compose("collect", [f"task={task}"]).task == task


def test_a_task_without_touch_is_not_recorded_with_sound():
    with pytest.raises(ValueError, match="task=push"):
        replace(PLAN, sound={})
    with pytest.raises(ValueError, match="sound takes rate, noise, materials, got volume"):
        replace(PLAN, task="push", sound={"volume": 3})
    with pytest.raises(UnknownName, match="unknown task 'pour'; known: cart-pole-v1, .*, pick, push, reach"):
        replace(PLAN, task="pour")


@pytest.mark.render
def test_a_task_without_labs_is_recorded_by_its_name(tmp_path, renderable):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        options = [
            "task=cart-pole-v1",
            f"out={tmp_path / 'log'}",
            "episodes=1",
            "steps=3",
            "image_size=16",
            "workers=1",
        ]
        log = record(compose("collect", options))
    assert log.cameras == ("side",) and list(log.lengths) == [4]
    assert log.metadata(0)["robot"] == "cart-pole-v1"
    columns = log.read(0, 0, 4, ["observation.state", "action"])
    assert columns["observation.state"].shape == (4, 4) and np.abs(columns["action"][:3]).min() > 0


@pytest.mark.render
def test_another_robot_wanders_and_a_model_of_its_log_knows_it(tmp_path, renderable):
    record_one(replace(PLAN, robot="ur5e", episodes=1), tmp_path, 0)
    publish_staged(tmp_path, 0)
    log = NpzStore(tmp_path)
    columns = log.read(0, 0, 4, ["observation.state", "observation.ee_pose"])
    assert log.metadata(0)["robot"] == "ur5e" and columns["observation.state"].shape == (4, 13)
    bank = load_bank(tmp_path)
    assert bank.origin["embodiment"] == "ur5e"
    known = load_world_model(tiny.save(tmp_path / "model", embodiment=bank.origin["embodiment"]))
    facts = {"cameras": ("left", "right"), "image_size": tiny.SIZE, "dt_s": 0.24, "box": UR5E.box(0, 1, 2)}
    known.check_robot(embodiment="ur5e", **facts)
    known.check_robot(**facts)
    with pytest.raises(BadCheckpoint, match="the arm ur5e, the robot is panda"):
        known.check_robot(embodiment="panda", **facts)


@pytest.mark.render
def test_handling_is_logged_with_the_command_and_contact_of_the_gripper(tmp_path, renderable):
    plan = replace(PLAN, task="pick", policy="handle", cameras=("left", "wrist"), episodes=1)
    record_one(plan, tmp_path, 0)
    publish_staged(tmp_path, 0)
    names = ["observation.gripper_command", "observation.contact", "observation.images.wrist"]
    found = NpzStore(tmp_path).read(0, 0, 4, names)
    assert [found[name].shape for name in names] == [(4, 1), (4, 3), (4, 16, 16, 3)]


@pytest.mark.render
def test_a_world_model_practises_towards_goals_of_each_protocol_in_turn(tmp_path, renderable):
    plan = replace(PLAN, task="pick", policy="practice", checkpoint="pick", image_size=64, episodes=1, steps=3, labs=3)
    plan = replace(plan, cameras=("left", "right", "wrist"))
    for index in range(3):
        record_one(plan, tmp_path, index)
    publish_staged(tmp_path, 0)
    store = NpzStore(tmp_path)
    first, again = store.read(0, 0, 4, ["action"])["action"], store.read(1, 0, 4, ["action"])["action"]
    assert first.shape == (4, 7) and np.abs(first[:3]).max() > 0 and not np.array_equal(first, again)
    record_one(plan, tmp_path / "repeated", 0)
    publish_staged(tmp_path / "repeated", 0)
    assert np.array_equal(NpzStore(tmp_path / "repeated").read(0, 0, 4, ["action"])["action"], first)
    assert store.metadata(0)["practised_by"] == load_world_model(CHECKPOINTS / "pick").fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["checkpoint=reach"], "needs heads for"),
        (["checkpoint=nowhere"], "there is no checkpoint at nowhere"),
        (["checkpoint=pick", "cameras=[wrist]"], "record what it sees"),
        (["checkpoint=pick", "image_size=32"], "record what it sees"),
    ],
)
def test_who_cannot_practise_is_refused_before_anything_is_written(tmp_path, options, words):
    done = collect(tmp_path / "log", "policy=practice", *options, "labs=1")
    assert done.returncode != 0 and words in done.stderr + done.stdout
    assert not list((tmp_path / "log").glob("*.json"))


@pytest.mark.parametrize("options", [{"policy": "practice"}, {"policy": "handle", "checkpoint": "pick"}])
def test_practice_takes_a_checkpoint_and_nothing_else_does(options):
    with pytest.raises(ValueError, match="needs checkpoint="):
        replace(PLAN, task="pick", **options)


def test_handling_needs_something_to_handle():
    with pytest.raises(ValueError, match="task=pick"):
        replace(PLAN, policy="handle")


@pytest.mark.render
def test_handling_and_pushing_are_chosen_on_the_command_line(tmp_path):
    for options, env, cameras in ((["policy=handle"], "pick-v1", 3), (["task=push"], "push-v1", 2)):
        folder = tmp_path / env
        done = collect(folder, *options, "labs=1", "episodes=1", "workers=1")
        assert done.returncode == 0, done.stderr
        metadata = NpzStore(folder).metadata(0)
        assert metadata["env"] == env and len(metadata["cameras"]) == cameras


def test_a_second_recording_into_the_same_folder_is_refused(tmp_path):
    with only_writer(tmp_path, what="recording"), pytest.raises(Busy, match="another recording .* writes to"):
        collect_log(PLAN, tmp_path, workers=1)
    assert not (tmp_path / "collect.json").exists()


def test_a_folder_with_other_files_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ValueError, match="holds files other than a log"):
        collect_log(PLAN, tmp_path, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


@pytest.mark.parametrize("text", ["[]", "{", '{"labs": "many"}', "labs: &a [*a, *a]"])
def test_settings_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "collect.json").write_text(text)
    (tmp_path / "episode_000000.npz").touch()
    with pytest.raises(ValueError, match="another folder|is not JSON"):
        settle(PLAN, tmp_path)
