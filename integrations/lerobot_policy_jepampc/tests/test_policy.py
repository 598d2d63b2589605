"""The policy within LeRobot: trained by its command, saved, loaded, asked for actions and plans."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot_policy_jepampc import JepaMpcConfig, JepaMpcPolicy
from PIL import Image
from safetensors.torch import load_file, save_file

from jepa_mpc.errors import BadObservation
from jepa_mpc.face.loading import load_world_model
from jepa_mpc.seeding import generator

SIDE, WIDTH, STEPS = 64, 7, 8
CAMERAS = ("left", "right")
IMAGE = "observation.images."


def features(cameras=CAMERAS, width=WIDTH):
    """What LeRobot fills into a policy's config."""
    pictures = {IMAGE + name: PolicyFeature(FeatureType.VISUAL, (3, SIDE, SIDE)) for name in cameras}
    return {
        "input_features": pictures | {"observation.state": PolicyFeature(FeatureType.STATE, (2,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (width,))},
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two episodes that LeRobot recorded."""
    root = tmp_path_factory.mktemp("data") / "set"
    picture = {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    shapes = {IMAGE + name: picture for name in CAMERAS} | {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (WIDTH,), "names": [f"a{axis}" for axis in range(WIDTH)]},
    }
    made = LeRobotDataset.create("log/set", fps=4, features=shapes, root=root, use_videos=False)
    rng = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(STEPS):
            frames = {IMAGE + name: rng.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8) for name in CAMERAS}
            state, action = (rng.normal(size=size).astype(np.float32) for size in (2, WIDTH))
            made.add_frame({**frames, "observation.state": state, "action": action, "task": "reach"})
        made.save_episode()
    made.finalize()
    return root


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """What `lerobot-train` leaves after three steps."""
    out = tmp_path_factory.mktemp("run") / "out"
    command = [
        str(Path(sys.executable).parent / "lerobot-train"), "--policy.type=jepampc", "--policy.system=arm",
        "--policy.window=3", "--policy.device=cpu", "--policy.push_to_hub=false", "--dataset.repo_id=log/set",
        f"--dataset.root={dataset}", f"--output_dir={out}", "--steps=3", "--batch_size=4", "--num_workers=0",
        "--log_freq=1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "loss:" in done.stderr + done.stdout
    return out / "checkpoints/last/pretrained_model"


@pytest.fixture(scope="module")
def policy():
    """The shipped world model of two cameras, without keypoints."""
    return JepaMpcPolicy(JepaMpcConfig(checkpoint="reach_wide", kind="simple", **features()))


def pictures(count, seed=0, goals=True):
    """A batch as LeRobot's preprocessor leaves it."""
    stream = torch.Generator().manual_seed(seed)
    names = [*CAMERAS, *(f"goal_{name}" for name in CAMERAS if goals)]
    return {IMAGE + name: torch.rand(count, 3, SIDE, SIDE, generator=stream) for name in names}


def test_lerobot_finds_distribution_and_policy_by_their_names():
    assert metadata("lerobot_policy_jepampc")["Name"] == "lerobot_policy_jepampc"
    assert get_policy_class("jepampc") is JepaMpcPolicy


def test_samples_are_windows_of_the_dataset(dataset):
    config = JepaMpcConfig(window=3, **features())
    read = LeRobotDataset("log/set", root=dataset)
    deltas = resolve_delta_timestamps(config, read.meta)
    assert deltas["action"] == [0.0, 0.25] and deltas[IMAGE + "left"] == [0.0, 0.25, 0.5]
    assert config.drop_n_last_frames == 2


def test_a_trained_policy_is_saved_and_loaded_the_way_of_lerobot(trained):
    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"} <= {
        file.name for file in trained.iterdir()
    }
    config = PreTrainedConfig.from_pretrained(trained)
    assert isinstance(config, JepaMpcConfig) and config.system == "arm"
    again = JepaMpcPolicy.from_pretrained(trained)
    saved = load_file(trained / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())
    sees = config.described()["interface"]
    assert sees["cameras"] == list(CAMERAS) and sees["actions"] == [f"a{axis}" for axis in range(WIDTH)]
    assert again.select_action(pictures(1)).shape == (1, WIDTH)
    before, after = make_pre_post_processors(config, pretrained_path=str(trained))
    batch = before({IMAGE + "left": torch.full((3, 2, 2), 0.25), "observation.state": torch.tensor([3.0, 4.0])})
    assert batch[IMAGE + "left"].unique() == 0.25 and batch["observation.state"].tolist() == [[3.0, 4.0]]
    assert after(torch.tensor([[5.0]])).tolist() == [[5.0]]


def test_training_moved_the_weights(trained, dataset):
    config = PreTrainedConfig.from_pretrained(trained)
    config.world_model = ""
    meta = LeRobotDataset("log/set", root=dataset).meta
    fresh = JepaMpcPolicy(config, dataset_stats=meta.stats, dataset_meta=meta)
    moved = JepaMpcPolicy.from_pretrained(trained)
    assert any(not torch.equal(a, b) for a, b in zip(fresh.parameters(), moved.parameters(), strict=True))


def test_weights_are_loaded_one_to_one_or_not_at_all(trained, tmp_path):
    for file in trained.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):
        JepaMpcPolicy.from_pretrained(tmp_path)


def test_the_loss_is_the_world_models_own(policy):
    policy.eval()
    window = {name: value.unflatten(0, (2, 3)) for name, value in pictures(6, goals=False).items()}
    actions = 0.02 * torch.randn(2, 2, WIDTH, generator=torch.Generator().manual_seed(1))
    loss, terms = policy({**window, "action": actions})
    frames = torch.cat([(255 * window[IMAGE + name]).round().to(torch.uint8) for name in CAMERAS], dim=2)
    wanted = policy.objective({"frames": frames, "actions": actions}, generator(0, "any"))
    assert terms["prediction"] == pytest.approx(float(wanted.terms["prediction"]), rel=1e-5)
    loss.backward()
    assert any(weight.grad is not None for weight in policy.get_optim_params())


def test_windows_beyond_the_end_of_an_episode_are_left_out(policy):
    policy.eval()
    window = {name: value.unflatten(0, (2, 3)) for name, value in pictures(6, goals=False).items()}
    batch = {**window, "action": torch.zeros(2, 2, WIDTH)}
    padded = torch.tensor([[False, False], [False, True]])
    _, told = policy({**batch, "action_is_pad": padded})
    _, alone = policy({name: value[:1] for name, value in batch.items()})
    assert told["prediction"] == pytest.approx(alone["prediction"], rel=1e-5)
    with pytest.raises(ValueError, match="no window of this batch lies within its episode"):
        policy({**batch, "action_is_pad": torch.ones(2, 2, dtype=torch.bool)})


def test_pictures_of_other_sizes_come_to_that_of_the_world_model(policy):
    policy.reset()
    large = {name: value.repeat_interleave(2, 2).repeat_interleave(2, 3) for name, value in pictures(1).items()}
    assert policy.select_action(large).shape == (1, WIDTH)
    window = {name: value[:, None].expand(-1, 3, -1, -1, -1) for name, value in large.items() if "goal" not in name}
    small = {name: value[..., ::2, ::2] for name, value in window.items()}
    losses = [policy({**seen, "action": torch.zeros(1, 2, WIDTH)})[1]["prediction"] for seen in (window, small)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_actions_and_plans_have_rows_for_each_environment(policy):
    low, high = (torch.tensor(policy.config.__dict__[name]) for name in ("action_low", "action_high"))
    policy.reset()
    with torch.inference_mode():  # as lerobot-eval asks
        action = policy.select_action(pictures(2))
        plan = policy.predict_action_chunk(pictures(2, seed=1))
    assert action.shape == (2, WIDTH) and plan.shape == (2, policy.config.horizon, WIDTH)
    for one in (action, plan):
        assert bool(((one >= low - 1e-6) & (one <= high + 1e-6)).all())
    assert not torch.equal(action[0], action[1])


def test_a_reset_forgets_the_episode(policy):
    policy.reset()
    policy.select_action(pictures(1))
    (session,) = policy._sessions
    policy.select_action(pictures(1, seed=1))
    assert policy._sessions == [session]
    policy.reset()
    policy.select_action(pictures(1))
    assert policy._sessions != [session]


def test_planners_that_follow_gradients_act_in_inference_mode():
    config = JepaMpcConfig(checkpoint="reach_wide", kind="simple", planner="gradient", **features())
    policy = JepaMpcPolicy(config)
    with torch.inference_mode():
        assert policy.select_action(pictures(1)).shape == (1, WIDTH)


def test_the_goal_is_a_file_or_a_frame_of_a_dataset(dataset, tmp_path):
    frame = LeRobotDataset("log/set", root=dataset)[STEPS + 3]
    files = []
    for name in CAMERAS:
        files.append(str(tmp_path / f"{name}.png"))
        Image.fromarray((255 * frame[IMAGE + name]).round().byte().permute(1, 2, 0).numpy()).save(files[-1])
    actions = []
    for goal in (files, [f"{dataset}:1:3"], []):
        policy = JepaMpcPolicy(JepaMpcConfig(checkpoint="reach_wide", kind="simple", goal=goal, **features()))
        seen = pictures(1, goals=False)
        if not goal:
            seen |= {f"{IMAGE}goal_{name}": frame[IMAGE + name][None] for name in CAMERAS}
        actions.append(policy.select_action(seen))
    assert torch.equal(actions[0], actions[1]) and torch.equal(actions[0], actions[2])


def test_what_is_missing_is_told_in_a_sentence(policy, tmp_path):
    given = {"checkpoint": "reach_wide", "kind": "simple"}
    policy.reset()
    with pytest.raises(BadObservation, match="there is no goal: send observation.images.goal_left"):
        policy.select_action(pictures(1, goals=False))
    with pytest.raises(BadObservation, match="need one goal image per camera"):
        JepaMpcPolicy(JepaMpcConfig(goal=["left.png"], **given, **features()))
    with pytest.raises(BadObservation, match="cannot be read"):
        JepaMpcPolicy(JepaMpcConfig(goal=[str(tmp_path / "a"), str(tmp_path / "b")], **given, **features()))
    with pytest.raises(ValueError, match="sees the cameras left, right, and observation.images.left is not among"):
        JepaMpcPolicy(JepaMpcConfig(**given, **features(cameras=("top", "wrist"))))
    with pytest.raises(ValueError, match=r"takes actions of 7 numbers, dataset or environment has .*\(6,\)"):
        JepaMpcPolicy(JepaMpcConfig(**given, **features(width=6)))
    with pytest.raises(ValueError, match="there is no world model: give --policy.checkpoint"):
        JepaMpcPolicy(JepaMpcConfig(**features()))
    meta = SimpleNamespace(fps=4, total_episodes=1, total_frames=5, repo_id="log/set")
    stats = {"action": {"std": np.ones(WIDTH), "min": -np.ones(WIDTH), "max": np.ones(WIDTH)}}
    with pytest.raises(ValueError, match=r"the dataset has no images observation.images.NAME"):
        JepaMpcPolicy(JepaMpcConfig(**features(cameras=())), dataset_stats=stats, dataset_meta=meta)
    with pytest.raises(ValueError, match="window must be 2 observations or more"):
        JepaMpcConfig(window=1, **features())


def test_the_calibrated_agent_looks_for_the_hand(policy):
    calibrated = JepaMpcPolicy(JepaMpcConfig(checkpoint="reach_wide", **features()))
    assert calibrated.select_action(pictures(2)).shape == (2, WIDTH)
    assert calibrated._sessions[0].fit.size == 2 * load_world_model("reach_wide").interface.image_size
