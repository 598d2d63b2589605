"""World models as folders: the same bits come back, and nothing that does not fit gets in."""

from __future__ import annotations

import json

import pytest
import torch

from jepa_mpc.checkpoint import CONFIG, MANIFEST, MODEL, load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Observation
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.recipes import as_world_model
from tests import tiny

BOX = ActionBox(low=torch.full((7,), -0.05), high=torch.full((7,), 0.05))
ROBOT = {"box": BOX, "cameras": ("left", "right"), "image_size": tiny.SIZE, "dt_s": 0.24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("world_model") / "model")


def seen() -> Observation:
    return Observation(frames=tiny.frames(), cameras=("left", "right"))


def described(folder, place, change):
    """A valid checkpoint of the same weights that says something else about itself."""
    tensors, config = load_checkpoint(folder)
    change(config)
    save_checkpoint(place, tensors, config)
    return place


def test_a_world_model_sees_and_imagines_the_same_bits_after_a_round_trip(folder):
    before, after = as_world_model(tiny.objective().eval(), tiny.interface()), load_world_model(folder)
    latents = before.perception(seen())
    assert torch.equal(latents, after.perception(seen()))
    context = Context(latents=latents[:, -1:], actions=torch.zeros(2, 0, 7))
    plans = torch.full((2, 3, 4, 7), 0.02)
    futures = [model.dynamics.rollout(context, plans).latents for model in (before, after)]
    assert torch.equal(*futures) and torch.equal(before.position_head(latents), after.position_head(latents))


def test_the_interface_comes_back_and_the_weights_are_frozen(folder):
    model = load_world_model(folder)
    assert model.interface == tiny.interface()
    assert not model.objective.training and not any(w.requires_grad for w in model.objective.parameters())
    assert len(model.fingerprint) == 12


def test_perception_prepares_pictures_as_the_training_did(folder):
    model = load_world_model(folder)
    torch.testing.assert_close(model.perception(seen()), model.objective.encode(seen().frames), atol=1e-4, rtol=1e-4)


def test_other_weights_have_another_fingerprint(folder, tmp_path):
    assert load_world_model(tiny.save(tmp_path / "other", seed=1)).fingerprint != load_world_model(folder).fingerprint


def test_a_model_without_the_displacement_head_has_no_metres():
    assert as_world_model(tiny.objective(extra=[]), tiny.interface()).position_head is None


def test_the_robot_of_the_training_is_welcome(folder):
    load_world_model(folder).check_robot(**ROBOT)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"box": ActionBox(low=-torch.ones(4), high=torch.ones(4))}, r"actions of width 7 \(dx.*the robot takes 4"),
        ({"cameras": ("right", "left")}, r"cameras \('left', 'right'\), the robot has \('right', 'left'\)"),
        ({"cameras": ("left",)}, r"the robot has \('left',\)"),
        ({"image_size": 64}, "images of 32 px, the robot provides 64 px"),
        ({"dt_s": 0.1}, "steps of 0.24 s, the robot has steps of 0.1 s"),
    ],
)
def test_another_robot_is_refused_with_both_sides(folder, change, words):
    with pytest.raises(BadCheckpoint, match=words):
        load_world_model(folder).check_robot(**ROBOT | change)


def test_all_differences_are_told_at_once(folder):
    with pytest.raises(BadCheckpoint, match=r"cameras .*; images .*; steps "):
        load_world_model(folder).check_robot(box=BOX, cameras=("top",), image_size=8, dt_s=1.0)


@pytest.mark.parametrize("name", [MODEL, CONFIG, MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "cut short", "one bit"])
def test_a_damaged_file_is_refused_by_name(folder, tmp_path, name, damage):
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        if path.name == name:
            if damage == "missing":
                continue
            data[len(data) // 3] ^= 4
            data = data[: len(data) // 2] if damage == "cut short" else data
        (tmp_path / path.name).write_bytes(data)
    with pytest.raises(BadCheckpoint, match=rf"{tmp_path}.*") as caught:
        load_world_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match="there is no checkpoint at"):
        load_world_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.pop("interface"), "does not describe a world model.*interface"),
        (lambda c: c["interface"].pop("dt_s"), "dt_s"),
        (lambda c: c["interface"].update(cameras=5), "does not describe a world model"),
        (lambda c: c.update(interface=[]), "does not describe a world model"),
        (lambda c: c["system"].update(preset="huge"), "unknown preset 'huge'"),
        (lambda c: c["system"].update(depth=3), "unexpected keyword argument 'depth'"),
        (lambda c: c["system"].update(encoder="a word"), "does not describe a world model"),
        (lambda c: c["system"]["encoder"].update(width=-1), "does not describe a world model"),
        (lambda c: c["system"]["encoder"].update(widths=[9, 9, 9, 9]), "does not describe a world model"),
        (lambda c: c["system"]["encoder"].update(keypoints=5), "these weights do not fit"),
        (lambda c: c["system"].update(action_dim=5, action_scale=[1.0] * 5), "these weights do not fit"),
        (lambda c: c["interface"].update(actions=["dx"] * 6), r"own interface \(2 x 32 px, 6 action axes\)"),
        (lambda c: c["interface"].update(cameras=["left"]), r"own interface \(1 x 32 px"),
        (lambda c: c["interface"].update(image_size=0), "own interface"),
        (lambda c: c.update(system=tiny.SYSTEM["encoder"]), "a KeypointEncoder, not a world model"),
        (lambda c: c["system"].update(preprocess=None, encoder=None), "these weights do not fit"),
    ],
)
def test_a_checkpoint_that_describes_nothing_usable_is_refused(folder, tmp_path, change, words):
    with pytest.raises(BadCheckpoint, match=words):
        load_world_model(described(folder, tmp_path / "odd", change))


def test_a_foreign_target_in_a_checkpoint_is_never_called(folder, tmp_path):
    sentinel = tmp_path / "executed"
    attack = {"_target_": "os.system", "command": f"touch {sentinel}"}
    place = described(folder, tmp_path / "attack", lambda config: config["system"].update(encoder=attack))
    with pytest.raises(BadCheckpoint, match=r"unknown part 'os\.system'"):
        load_world_model(place)
    assert not sentinel.exists()


def test_a_checkpoint_of_a_newer_format_names_both_versions(folder, tmp_path):
    place = described(folder, tmp_path / "new", lambda config: None)
    config = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(BadCheckpoint, match="format 99.*up to format [0-9]+"):
        load_world_model(place)


def test_saving_twice_replaces_the_whole_and_leaves_nothing_else(tmp_path):
    for seed in (0, 1):
        tiny.save(tmp_path / "model", seed=seed)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert torch.equal(
        load_world_model(tmp_path / "model").perception(seen()),
        as_world_model(tiny.objective(1), tiny.interface()).perception(seen()),
    )


def test_a_folder_of_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="files other than"):
        save_world_model(tmp_path, tiny.objective(), system=tiny.system(), interface=tiny.interface())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_world_model_looks_back_on_as_many_frames_as_asked(folder):
    alone, both = (load_world_model(folder, context=context) for context in (1, 2))
    latents = torch.randn(1, 2, 1, alone.objective.encoder.width, generator=generator(5))
    actions = 0.02 * torch.randn(1, 3, 2, 7, generator=generator(6))
    context = Context(latents=latents, actions=torch.full((1, 1, 7), 0.02))
    futures = [model.dynamics.rollout(context, actions).latents for model in (alone, both)]
    assert not torch.equal(*futures)
    short = Context(latents=latents[:, -1:], actions=context.actions[:, :0])
    assert torch.equal(futures[0], both.dynamics.rollout(short, actions).latents)
    with pytest.raises(BadCheckpoint, match="takes 1 to"):
        load_world_model(folder, context=99)
