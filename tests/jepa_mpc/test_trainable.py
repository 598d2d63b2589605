"""World models for the training loops of others: built from a name, filled from a checkpoint, described and saved."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.checkpoint import load_strict
from jepa_mpc.errors import BadCheckpoint, UnknownName
from jepa_mpc.face.loading import load_world_model
from jepa_mpc.face.training.trainable import described_model, new_model, open_model, usual_size
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.dynamics.model import Interface

SEES = Interface(cameras=("top",), image_size=64, actions=("a", "b"), dt_s=0.1)


@pytest.fixture(scope="module")
def model():
    return new_model("environment", SEES, spread=[0.5, 0.0], seed=3)


def loss(model):
    shape = (2, 3, 3, 64, 64)
    stream = torch.Generator().manual_seed(0)
    batch = {
        "frames": torch.randint(256, shape, generator=stream, dtype=torch.uint8),
        "actions": torch.randn(2, 2, 2, generator=stream),
    }
    return model.objective(batch, generator(0, "noise")).total


def test_cameras_and_actions_of_the_robot_size_the_network(model):
    assert model.system["encoder"]["num_cameras"] == 1 and model.system["action_dim"] == 2
    assert model.system["action_scale"] == [0.5, 1.0]  # the second axis is fixed
    assert model.system["preprocess"]["size"] == [3, 64, 64]
    loss(model).backward()
    assert all(weight.grad is not None for weight in model.objective.encoder.parameters())


def test_a_description_builds_the_same_network_for_its_weights(model):
    again = described_model(model.describe())
    load_strict(again.objective, model.objective.state_dict(), "again")
    assert again.interface == SEES
    assert torch.equal(loss(again), loss(model))


def test_what_was_trained_elsewhere_becomes_a_checkpoint(model, tmp_path):
    model.save(tmp_path / "checkpoint")
    assert load_world_model(tmp_path / "checkpoint").interface == SEES
    again = open_model(tmp_path / "checkpoint")
    assert torch.equal(loss(again), loss(model))
    assert any(weight.requires_grad for weight in again.objective.parameters())


def test_what_does_not_fit_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UnknownName, match="unknown system 'lewm'"):
        new_model("lewm", SEES, spread=[1.0, 1.0])
    with pytest.raises(ValueError, match="the system ijepa_small is not a world model for 1 images of 64 px"):
        new_model("ijepa_small", SEES, spread=[1.0, 1.0])
    with pytest.raises(ValueError, match="does not describe a world model"):
        described_model({"system": {}})
    with pytest.raises(BadCheckpoint):
        open_model(tmp_path)


def test_the_usual_size_of_a_fixed_axis_is_one():
    assert usual_size(torch.tensor([0.2, 1e-5])).tolist() == pytest.approx([0.2, 1.0])
