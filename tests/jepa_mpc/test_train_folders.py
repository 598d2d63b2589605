"""Trainings on folders of clouds, pictures and sounds: what they leave behind, and that they go on to the same bits."""

from __future__ import annotations

import json

import pytest
import torch

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.training.pretrained import published_encoder
from jepa_mpc.face.training.training_run import train
from jepa_mpc.world_model.training.health import LatentCollapse
from tests.experiments.test_pretraining import configured
from tests.trajectories.test_folders import write_clouds, write_pictures, write_sounds

FOLDER = ["fit=pretraining", "actions=none", "window=1", "max_stride=1", "batch=4", "validation=0.34", "probe=4"]
SHORT = ["fit.log_every=2", "fit.evaluate_every=2", "fit.save_every=2", "watch.frames=4"]
SYSTEMS = {
    "point_jepa_small": ["system.preset=tiny"],
    "jepa_3d_small": ["system.preset=tiny"],
    "lejepa_small": ["system.preset=tiny", "image_size=28"],
    "audio_jepa_small": ["system.preset=tiny", "system.rate=2000"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_clouds(folder / "clouds", sizes=(40,) * 9)
    write_pictures(folder / "pictures", sizes=((28, 28),) * 9)
    write_sounds(folder / "sounds", sizes=(500,) * 9)
    return folder


def trained(data, name, out, *more, steps=4):
    kind = {"lejepa_small": "pictures", "audio_jepa_small": "sounds"}.get(name, "clouds")
    options = [f"system={name}", *SYSTEMS[name], *FOLDER, *SHORT, f"fit.steps={steps}", f"data={data / kind}"]
    return train(configured("train", *options, f"out={out}", *more))


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_stopped_training_goes_on_to_the_same_bits(name, data, tmp_path, monkeypatch):
    whole = load_checkpoint(trained(data, name, tmp_path / "whole"))[0]
    stops = iter([False, False, True])
    with monkeypatch.context() as patched:
        patched.setattr("jepa_mpc.face.training.training_run.Stop.__call__", lambda self: next(stops, True))
        with pytest.raises(Stopped, match="resumes there"):
            trained(data, name, tmp_path / "halves")
    assert json.loads((tmp_path / "halves/metrics.jsonl").read_text().splitlines()[-1])["step"] < 4
    again = load_checkpoint(trained(data, name, tmp_path / "halves"))[0]
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def test_its_numbers_tell_of_collapse_and_its_encoder_is_published(data, tmp_path):
    folder = trained(data, "point_jepa_small", tmp_path / "run")
    numbers = {key for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert {"clouds/hidden", "held/loss", "health/std_ratio", "health/effective_rank", "health/collapsed"} <= numbers
    encoder = published_encoder(folder)
    assert encoder(torch.randn(2, 40, 3)).shape == (2, 16, 32)


def test_a_training_without_its_regulariser_is_stopped(data, tmp_path):
    with pytest.raises(LatentCollapse, match="projections: .* of the dimensions"):
        trained(data, "lejepa_small", tmp_path / "run", "+system.weight=0.0", "watch.every=20", steps=40)


def test_a_training_on_sounds_of_another_rate_or_with_gaps_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="2000 samples per second, the system takes 16000: give system.rate=2000"):
        trained(data, "audio_jepa_small", tmp_path / "run", "system.rate=16000")
    with pytest.raises(ValueError, match="sound needs consecutive steps: pass skip=1 max_stride=1"):
        trained(data, "audio_jepa_small", tmp_path / "run", "max_stride=2")
    with pytest.raises(ValueError, match="the log has no field 'sound': record one with collect.py task=push"):
        trained(data, "audio_jepa_small", tmp_path / "run", f"data={data / 'clouds'}")


def test_a_training_on_clouds_where_there_are_none_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="the log has no field 'clouds': record one with collect.py task=push clouds="):
        trained(data, "point_jepa_small", tmp_path / "run", f"data={data / 'sounds'}", "skip=1", "max_stride=1")


@pytest.mark.parametrize("kind", ["clouds", "sounds"])
def test_pictures_of_clouds_and_sounds_are_nothing_to_learn_from(data, tmp_path, kind):
    with pytest.raises(ValueError, match=f"a folder of {kind} has no images to learn from"):
        trained(data, "lejepa_small", tmp_path / "run", f"data={data / kind}")
