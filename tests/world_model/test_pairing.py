"""Any encoder in front of any predictor: each pair trains two steps and is used once, or is refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jepa_mpc.planners import build_planner
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, Observation, PlanRequest
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.pairing import paired
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.objectives.think import ThinkObjective
from jepa_mpc.world_model.recipes import as_world_model
from tests import tiny

SIZE, WORLDS = 28, 3
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/architecture.md"


def of_system(name: str) -> dict[str, Any]:
    return {"_target_": "encoder_of", "system": {"_target_": name, "preset": "tiny"}}


NARROW = {"widths": [8, 8, 8, 8], "keypoints": 4, "hidden": 16}
ENCODERS: dict[str, dict[str, Any]] = {
    "keypoint": {"_target_": "keypoint_encoder", "num_cameras": 1, "width": 32, **NARROW},
    "vit_small": {
        "_target_": "vision_transformer",
        "sizes": {"_target_": "vit_sizes", "image": 28, "patch": 7, "width": 32, "depth": 1, "heads": 2, "mlp_dim": 32},
    },
    "resnet_grid": {"_target_": "resnet_grid", "width": 32, "stem": 8, "widths": [8, 16], "depths": [1, 1]},
    "ijepa_small": of_system("ijepa"),
    "vjepa_small": of_system("vjepa"),
    "hjepa_pyramid_small": of_system("hjepa_pyramid"),
    "lejepa_small": of_system("lejepa"),
    "vjepa2_small": of_system("vjepa2"),
    "vjepa2_1_small": of_system("vjepa2_1"),
    "mc_jepa": of_system("mc_jepa"),
    "video_slots": of_system("video_slots"),
    "hand_points": of_system("hand_points"),
    "object_finder": of_system("object_finder"),
    "point_jepa_small": of_system("point_jepa"),
    "jepa_3d_small": of_system("jepa_3d"),
    "audio_jepa_small": of_system("audio_jepa"),
}
HEAD = [["displacement", 1.0, {"_target_": "hindsight_displacement", "width": 64}]]
ACTS = {"action_dim": 7, "action_scale": [0.1] * 7}
SYSTEMS: dict[str, dict[str, Any]] = {
    "leworldmodel": {"_target_": "leworldmodel", "preset": "lab", "extra": HEAD, **ACTS},
    "leworldmodel_paper": {"_target_": "leworldmodel", "preset": "tiny", **ACTS},
    "vjepa2_ac": {"_target_": "vjepa2_ac", "preset": "tiny", **ACTS},
    "act_jepa": {"_target_": "act_jepa", "preset": "tiny", **ACTS},
    "causal_jepa": {"_target_": "causal_jepa", "preset": "tiny", **ACTS},
    "think_jepa": {"_target_": "think_jepa", "preset": "tiny"},
}
NO_PICTURES = {"hand_points", "object_finder", "point_jepa_small", "jepa_3d_small", "audio_jepa_small"}
REFUSED = {
    *((encoder, system) for encoder in NO_PICTURES for system in SYSTEMS),
    *(("video_slots", system) for system in ("vjepa2_ac", "think_jepa")),
    *((encoder, "causal_jepa") for encoder in ("keypoint", "vit_small")),
}
PAIRS = [(encoder, system) for encoder in ENCODERS for system in SYSTEMS]


def together(encoder: str, system: str) -> dict[str, Any]:
    return paired(SYSTEMS[system], ENCODERS[encoder], picture=(3, SIZE, SIZE))


def batch() -> dict[str, torch.Tensor]:
    """Windows of four observations: noise that each world keeps, and poses near a usual one."""
    moves = 0.1 * torch.randn(WORLDS, 3, 7, generator=generator(1))
    felt = torch.cat([torch.full_like(moves[:, :1], 0.1), 0.1 + moves.cumsum(1)], dim=1).clamp(-0.9, 0.9)
    frames = tiny.frames(WORLDS, 4, channels=3, size=SIZE)
    return {"frames": frames, "actions": moves, "proprio": felt}


@pytest.mark.slow
@pytest.mark.parametrize("encoder, system", [pair for pair in PAIRS if pair not in REFUSED])
def test_a_pair_trains_and_plans(encoder, system):
    objective = assemble(together(encoder, system), generator=generator(0)).train()
    rates = torch.optim.AdamW([weight for weight in objective.parameters() if weight.requires_grad], lr=1e-3)
    for step in range(2):
        loss = objective(batch(), generator(2, step)).total
        rates.zero_grad()
        loss.backward()
        rates.step()
        objective.after_step(step / 2)
    assert loss.isfinite()
    answer = use(objective.eval())
    assert answer.isfinite().all() and len(answer) == 1


def use(objective: Any) -> torch.Tensor:
    """What a trained pair is for: a plan `1 H A`, a chunk `1 H A`, or future tokens `1 H N D`."""
    seen = {name: value[:1] for name, value in batch().items()}
    if isinstance(objective, ThinkObjective):
        return objective.foresee(
            objective.encode(seen["frames"])[:, list(objective.views.dense)], objective.features({}, seen["frames"])
        )
    if isinstance(objective, ChunkObjective):
        pictures = objective.encode(
            seen["frames"][:, :: objective.context.pictures + 1][:, : objective.context.pictures]
        )
        return objective.chunk(torch.tensor([1]), seen["proprio"][:, 0], pictures)
    assert isinstance(objective, DynamicsObjective)
    return plan(objective, seen)


def plan(objective: DynamicsObjective, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """A short search in the world model."""
    interface = Interface(cameras=("left",), image_size=SIZE, actions=tiny.ACTIONS, dt_s=0.24)
    model = as_world_model(objective, interface)
    felt = seen["proprio"] if model.needs_proprio else None
    first, last = (
        model.perception(
            Observation(
                frames=seen["frames"][:, at], cameras=interface.cameras, proprio=None if felt is None else felt[:, at]
            )
        )
        for at in (slice(0, 1), slice(3, 4))
    )
    known = Context(latents=first, actions=seen["actions"][:, :0], proprio=None if felt is None else felt[:, :1])

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        return model.goal_cost(model.dynamics.rollout(known, plans), plans, Goal(latents=last[:, 0]))

    search = build_planner("cem", {"num_samples": 8, "num_iterations": 2, "num_elites": 2})
    box = ActionBox(low=torch.full((7,), -0.1), high=torch.full((7,), 0.1))
    return search.plan(PlanRequest(evaluate=evaluate, box=box, batch=1, horizon=2, generator=generator(3))).actions


@pytest.mark.parametrize("encoder, system", sorted(REFUSED))
def test_what_makes_no_sense_is_refused_and_told_what_would_fit(encoder, system):
    with pytest.raises(
        ValueError, match=r"^encoder=\w+ is incompatible with \w+: [^\n]+use (an image encoder|leworldmodel)"
    ) as refused:
        together(encoder, system)
    assert "\n" not in str(refused.value)


def test_the_page_shows_every_pair():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(), flags=re.MULTILINE)
    cells = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows if name in ENCODERS}
    assert cells == {
        encoder: ["–" if (encoder, system) in REFUSED else "✓" for system in SYSTEMS] for encoder in ENCODERS
    }


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_of_the_page_has_a_name_on_the_command_line(encoder):
    spec = yaml.safe_load((ROOT / f"configs/encoder/{encoder}.yaml").read_text())
    assert spec["_target_"] == ENCODERS[encoder]["_target_"] and isinstance(assemble(spec), torch.nn.Module)


def test_pictures_of_two_cameras_are_refused_by_an_encoder_of_one():
    with pytest.raises(ValueError, match=r"encoder=ijepa is incompatible with vjepa2_ac: .*choose one camera"):
        paired(SYSTEMS["vjepa2_ac"], ENCODERS["ijepa_small"], picture=(6, SIZE, SIZE))


def test_a_system_with_an_encoder_of_its_own_says_so():
    with pytest.raises(ValueError, match="encoder=keypoint_encoder: ijepa builds its own encoder"):
        paired({"_target_": "ijepa", "preset": "tiny"}, ENCODERS["keypoint"], picture=(3, SIZE, SIZE))


def test_a_released_encoder_is_measured_without_its_weights():
    released = {"_target_": "released_encoder", "model": "vjepa2_1_vit_gigantic"}
    made = paired(SYSTEMS["vjepa2_ac"], released, picture=(3, 64, 64))
    assert (made["state_dim"], made["grid"]) == (1664, [4, 4])
