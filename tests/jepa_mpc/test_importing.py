"""Released weights in their official layouts, tiny and random: imported by the command, they plan in our labs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import jepa_mpc
from jepa_mpc.encoders.preprocessing import RobotPixels
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.vit import ViTSizes
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.experiments.commands.import_weights import import_released
from jepa_mpc.face.commands import composed
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context
from jepa_mpc.world_model.adapters import dino_wm, lewm, vjepa2_ac_files
from jepa_mpc.world_model.adapters.lewm import released_config, to_released
from jepa_mpc.world_model.agents.blocks import BlockAgent
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.parts.poses import HandPose
from jepa_mpc.world_model.recipes import leworldmodel, vjepa2_ac
from tests.world_model.test_vjepa2_ac import trainer_file

STEPS = 2  # robot's actions in a block
NEWER = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    ("encoder.encoder.layer.", "encoder.layers."),
)


def newer(name):
    """The spelling of later packages."""
    for old, new in NEWER:
        name = name.replace(old, new)
    return name


def lewm_file(folder, *, how):
    """A LeWorldModel for blocks of two actions of seven numbers, at 28 px."""
    made = leworldmodel.build(preset="tiny", action_dim=7 * STEPS, generator=generator(0)).eval()
    with torch.no_grad():
        for block in made.predictor.trunk.blocks:  # gates begin at zero: nothing would depend on actions
            block.to_modulation.weight.normal_(std=0.5, generator=generator(1))
    weights = to_released(made.state_dict())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(released_config(made)))
    if how == "pldm":
        weights |= {"idm.net.0.weight": torch.zeros(3, 3)}
    if how == "newer":
        weights = {newer(name): value for name, value in weights.items()}
    content = {"model": weights} if how == "wrapped" else {f"model.{n}": x for n, x in weights.items()}
    torch.save(content, folder / "weights.pt")
    return made


def statistics(folder):
    mean = [0.01, 0.0, -0.01, 0.0, 0.0, 0.0, 0.0]
    (folder / "actions.json").write_text(json.dumps({"mean": mean, "std": [0.02, 0.02, 0.02, 1.0, 1.0, 1.0, 1.0]}))
    return folder / "actions.json"


def imported(folder, model, hub, **options):
    cfg = composed("import_weights", {"model": model, "hub": hub, "to": folder / "checkpoint", **options})
    return import_released(cfg)


def decide(model, *, horizon=2, **settings):
    """One decision in a lab that the model fits."""
    px, cameras = model.interface.image_size, list(model.interface.cameras)
    env = jepa_mpc.make_env("reach-v1", image_size=px, cameras=tuple(cameras), budget=3)
    planner = {"_target_": "random_shooting", "num_samples": 64}
    agent = jepa_mpc.load_agent(env, model, horizon=horizon, planner=planner, effort=0.0)
    try:
        observation, _ = env.reset(seed=0)
        agent.reset(observation)
        actions = []
        for _ in range(3):
            actions.append(agent.act(observation))
            observation, *_ = env.step(actions[-1])
    finally:
        env.close()
    return agent, actions


@pytest.mark.render
@pytest.mark.parametrize("how", ["plain", "newer", "wrapped", "pldm"])
def test_leworldmodel_and_pldm_plan_in_a_lab_in_blocks_of_actions(tmp_path, how):
    made = lewm_file(tmp_path / "hub", how=how)
    name = "pldm" if how == "pldm" else "leworldmodel"
    model = imported(tmp_path, name, tmp_path / "hub", statistics=statistics(tmp_path))
    assert model.interface.dt_s == pytest.approx(STEPS * 0.24) and model.steps_per_action == STEPS
    frames = torch.randint(0, 256, (1, 1, 3, 28, 28), dtype=torch.uint8, generator=generator(1))
    with torch.no_grad():
        state = made.encoder(made.preprocess(frames[0]))[None]
        plan = 0.05 * torch.randn(1, 1, 1, 7 * STEPS, generator=generator(2))
        standard = (plan - torch.tensor([0.01, 0, -0.01, 0, 0, 0, 0] * STEPS)) / torch.tensor(
            [*[0.02] * 3, *[1.0] * 4] * STEPS
        )
        wanted = made.predictor(state, standard[:, 0])
    context = Context(latents=state, actions=plan[:, 0, :0])
    torch.testing.assert_close(model.dynamics.rollout(context, plan).latents[:, 0], wanted)
    agent, actions = decide(model)
    assert isinstance(agent.agent, BlockAgent) and all(action.shape == (7,) for action in actions)
    assert agent.last.planned and not np.allclose(actions[0], actions[1])  # the third action begins a block


@pytest.mark.render
def test_other_picture_sizes_are_interpolated(tmp_path):
    lewm_file(tmp_path / "hub", how="plain")
    model = imported(tmp_path, "leworldmodel", tmp_path / "hub", statistics=statistics(tmp_path), image_size=56)
    assert model.interface.image_size == 56
    _, actions = decide(model)
    assert np.isfinite(actions).all()


def test_statistics_come_from_a_log_too(tmp_path):
    from jepa_mpc.trajectories.bank import load_bank
    from jepa_mpc.trajectories.stats import action_stats
    from jepa_mpc.trajectories.synthetic import synthetic_log

    lewm_file(tmp_path / "hub", how="plain")
    log = synthetic_log(tmp_path / "log", episodes=2)
    model = imported(tmp_path, "leworldmodel", tmp_path / "hub", data=log, cameras=["left"])
    bank = load_bank(log, cameras=["left"])
    known = model.objective.predictor.action_encoder.action_map
    torch.testing.assert_close(known.mean, action_stats(bank).mean.repeat(STEPS))
    assert model.interface.cameras == bank.cameras and model.interface.dt_s == pytest.approx(STEPS * bank.step_s)


@pytest.mark.parametrize(("options", "words"), [
    ({}, "takes standardised actions"),
    ({"statistics": "five.json"}, "takes actions of width 14, the statistics have width 5"),
    ({"statistics": "none.json"}, "should hold lists of numbers"),
])  # fmt: skip
def test_missing_or_wrong_statistics_are_named(tmp_path, options, words):
    lewm_file(tmp_path / "hub", how="plain")
    (tmp_path / "five.json").write_text(json.dumps({"mean": [0.0] * 5, "std": [1.0] * 5}))
    options = {name: tmp_path / value for name, value in options.items()}
    with pytest.raises(BadCheckpoint, match=words):
        imported(tmp_path, "leworldmodel", tmp_path / "hub", **options)


VIT = ViTSizes(image=28, patch=14, width=12, depth=1, heads=2, mlp_dim=24)
DINO_WM = {
    "_target_": "dino_wm", "action_dim": 7, "side": 2, "window": 3,
    "encoder": {"_target_": "dinov2_encoder", "sizes": {"_target_": "vit_sizes", **VIT.__dict__}},
    "trunk": {"_target_": "trunk_sizes", "width": 16, "depth": 2, "heads": 2, "head_dim": 4, "mlp_dim": 20},
}  # fmt: skip
THEIRS = {
    "positions.table": "pos_embedding",
    "trunk.norm.": "transformer.norm.",
    "trunk.blocks.": "transformer.layers.",
    ".attention.norm.": ".0.norm.",
    ".attention.to_qkv.": ".0.to_qkv.",
    ".attention.output.0.": ".0.to_out.0.",
    ".mlp.norm.": ".1.net.0.",
    ".mlp.up.": ".1.net.1.",
    ".mlp.down.": ".1.net.4.",
}


def their_predictor(made):
    """Predictor and action map of a DINO-WM, spelled as released."""
    found = {}
    for name, value in made.predictor.state_dict().items():
        for ours, theirs in THEIRS.items():
            name = name.replace(ours, theirs)
        found[name] = value.flatten(1, 2) if name == "pos_embedding" else value
    action = {f"patch_embed.{name}": found.pop(f"action_encoder.linear.{name}") for name in ("weight", "bias")}
    action["patch_embed.weight"] = action["patch_embed.weight"][..., None]
    return found, action


@pytest.fixture
def dinov2():
    """A tiny DINOv2 of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    return transformers.Dinov2Model(config).eval()


@pytest.mark.render
@pytest.mark.parametrize("layout", ["one_table", "trainer"])
def test_dino_wm_in_both_layouts_plans_in_a_lab(tmp_path, layout, dinov2):
    made = assemble(DINO_WM).eval()
    predictor, action = their_predictor(made)
    options = {"heads.predictor": 2, "heads.encoder": 2, "statistics": statistics(tmp_path)}
    if layout == "one_table":
        table = {f"predictor.{n}": x for n, x in predictor.items()}
        table |= {f"predictor.transformer.layers.{n}.0.bias": torch.ones(1, 1, 12, 12) for n in range(2)}
        table |= {f"extra_encoders.action.{n}": x for n, x in action.items()}
        table |= {f"backbone.backbone.{n}": x for n, x in dinov2.state_dict().items()}
        torch.save(table, tmp_path / "weights.pt")
    else:
        content = {"predictor": {f"module.{n}": x for n, x in predictor.items()}, "action_encoder": action, "epoch": 3}
        torch.save(content, tmp_path / "weights.pt")
        save_file(dinov2.state_dict(), tmp_path / "dinov2.safetensors")
        options["dinov2"] = tmp_path / "dinov2.safetensors"
    model = imported(tmp_path, "dino_wm", tmp_path / "weights.pt", **options)
    frames = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8, generator=generator(1))
    pixels = model.objective.preprocess(frames)
    with torch.no_grad():
        wanted = dinov2(pixel_values=pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(model.objective.encoder(pixels), wanted, rtol=1e-4, atol=1e-5)
    agent, actions = decide(model)
    assert not isinstance(agent.agent, BlockAgent) and np.isfinite(actions).all()


def test_imagining_with_dino_wm_equals_running_every_window_anew():
    made = assemble(DINO_WM).eval()
    draw = generator(3)
    states, plans = torch.randn(1, 1, 4, 12, generator=draw), torch.randn(1, 2, 5, 7, generator=draw)
    with torch.no_grad():
        imagined, _ = made.predictor.rollout(states, plans[:, 0, :0], plans)
        for candidate in range(2):
            known = states
            for step in range(5):
                window = slice(max(0, known.shape[1] - 3), None)
                following = made.predictor(known[:, window], plans[:, candidate, : step + 1][:, window])[:, -1:]
                known = torch.cat([known, following], dim=1)
            torch.testing.assert_close(imagined[:, candidate], known[:, 1:], rtol=1e-4, atol=1e-5)


def test_dino_wm_with_proprioception_is_refused(tmp_path):
    predictor, action = their_predictor(assemble(DINO_WM))
    torch.save({"predictor": predictor, "action_encoder": action, "proprio_encoder": action}, tmp_path / "weights.pt")
    with pytest.raises(BadCheckpoint, match="also takes proprioception"):
        dino_wm.load_released(tmp_path / "weights.pt", encoder="x")


def test_vjepa2_ac_moves_a_robot_of_seven_numbers_in_its_own_units(tmp_path):
    file = trainer_file(tmp_path)
    (tmp_path / "arm.yaml").write_text(
        "position: pose[0:3]\nrotation: pose[3:6]\nrotation_form: euler_xyz\nradian: 0.0174533\nmetre: 0.001\n"
        "gripper: pose[6:7]\ngripper_scale: -0.01\ngripper_offset: 1.0\n"
    )
    heads = {"heads.predictor": 2, "heads.encoder": 1}
    options = {"robot": tmp_path / "arm.yaml", "cameras": ["wrist"], "dt_s": 0.25, "image_size": 32, **heads}
    model = imported(tmp_path, "vjepa2_ac", file, **options)
    assert model.needs_proprio and model.interface.image_size == 32
    planner = {"_target_": "cem", "num_samples": 8, "num_elites": 2, "num_iterations": 2}
    agent = jepa_mpc.load_robot_agent(tmp_path / "checkpoint", planner=planner, horizon=1, effort=0.0)
    pictures = np.random.default_rng(0).integers(0, 255, (2, 180, 320, 3), dtype=np.uint8)
    pose = np.array([450.0, -20.0, 300.0, 180.0, 0.0, 30.0, 70.0])  # mm, degrees, percent open
    agent.reset({"observation.images.wrist": pictures[0]}, {"pose": pose})
    command = agent.act({"wrist": pictures[1]}, {"pose": pose})["pose"][0]
    assert command.shape == (7,) and np.abs(command[:3] - pose[:3]).max() <= 75.0 + 1e-3
    np.testing.assert_allclose(np.cos(np.deg2rad(command[3:6] - pose[3:6])), 1.0, atol=1e-4)  # rotations stay
    assert not np.allclose(command[:3], pose[:3])
    moved = model.objective.predictor.proprio(agent.adapter.observe({"wrist": pictures[0]}, {"pose": pose}).proprio)
    np.testing.assert_allclose(moved[0, 0, [0, 1, 2, 6]], [0.45, -0.02, 0.3, 0.3], atol=1e-5)  # m, 0.3 closed


@pytest.mark.render
def test_vjepa2_ac_plans_in_a_lab(tmp_path):
    heads = {"heads.predictor": 2, "heads.encoder": 1}
    model = imported(tmp_path, "vjepa2_ac", trainer_file(tmp_path), image_size=32, **heads)
    _, actions = decide(model, horizon=1)
    assert np.isfinite(actions).all()


def described(name):
    """A model of the released size without numbers, and its configuration."""
    with torch.device("meta"):
        if name == "vjepa2_ac":
            made = vjepa2_ac.build(preset="giant", reader=HandPose(), preprocess=RobotPixels(256))
            return made, vjepa2_ac_files.system_of(made)
        if name == "leworldmodel":
            made = leworldmodel.build(preset="paper", action_dim=10)
            return made, lewm.system_of(made)
        vit = {"_target_": "vit_sizes", **RELEASES["dinov2_vits"].sizes.__dict__}
        trunk = {"_target_": "trunk_sizes", "width": 394, "depth": 6, "heads": 16, "head_dim": 64, "mlp_dim": 2048}
        system = {"action_dim": 10, "side": 14, "encoder": {"_target_": "dinov2_encoder", "sizes": vit}, "trunk": trunk}
        return assemble(DINO_WM | system), DINO_WM | system


@pytest.mark.parametrize("name", ["vjepa2_ac", "leworldmodel", "dino_wm"])
def test_models_of_the_released_size_are_described_whole(name):
    made, system = described(name)
    with torch.device("meta"):
        again = assemble(json.loads(json.dumps(system)))
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (made, again)]
    assert shapes[0] == shapes[1] and sum(shape.numel() for shape in shapes[0].values()) > 18e6
