"""What the programs of README and docs find when they start: small logs, films, networks and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from scipy.io import wavfile

import jepa_mpc
from jepa_mpc.encoders.points import PointSizes, point_encoder
from jepa_mpc.face.loading import plan_settings
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.adapters.thinker_features import save_features
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.recipes import act_jepa, audio_jepa, causal_jepa
from tests import tiny

Names = dict[str, Any]

SCENE = """
<mujoco>
  <worldbody>
    <camera name="left" pos="0 -2 0.5" xyaxes="1 0 0 0 0 1"/>
    <body pos="0 0 0.5"><freejoint/><geom size="0.2"/></body>
  </worldbody>
</mujoco>"""


def film(folder: Path) -> Names:
    """A video of twenty frames."""
    import imageio.v2 as imageio

    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    imageio.mimwrite(folder / "clip.mp4", list(frames), fps=4, macro_block_size=1)
    return {}


def robot(folder: Path) -> Names:
    """Pictures of a goal and of now, and the columns of our arm."""
    names = ("goal_left", "goal_right", "left", "right")
    pictures = np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3), dtype=np.uint8)
    columns = {
        "observation.ee_pose": np.array([0.4, 0.0, 0.3, 0.0, 0.0, 0.0]),
        "observation.gripper": np.array([0.02]),
        "observation.state": np.zeros(14),
    }
    return {**dict(zip(names, pictures, strict=True)), "columns": columns}


def scene(folder: Path) -> Names:
    """A falling ball in front of a camera."""
    model = mujoco.MjModel.from_xml_string(SCENE)
    return {"model": model, "data": mujoco.MjData(model)}


def chunk_policy(folder: Path) -> Names:
    """An untrained policy, a world model and the task of both."""
    system = {"preset": "tiny", "action_dim": 7}
    made = act_jepa.build(**system, generator=generator(0))
    place = folder / "runs" / "act_jepa" / "act_jepa_240_s0" / "checkpoint"
    facts = tiny.interface(cameras=("left",), image_size=28)
    save_world_model(place, made, system={"_target_": "act_jepa", **system}, interface=facts)
    model = jepa_mpc.load_world_model(tiny.save(folder / "model"))
    env = jepa_mpc.make_env("reach-v1", image_size=tiny.SIZE)
    return {"env": env, "model": model, "settings": plan_settings("cem_short", horizon=2)}


def slots_model(folder: Path) -> Names:
    """An untrained world model over slots."""
    system = {"preset": "tiny", "action_dim": 2}
    made = causal_jepa.build(**system, generator=generator(0))
    facts = tiny.interface(cameras=("eye",), actions=("dx", "dy"), image_size=28)
    place = folder / "runs" / "causal_jepa" / "checkpoint"
    save_world_model(place, made, system={"_target_": "causal_jepa", **system}, interface=facts)
    return {}


def interventions(folder: Path) -> Names:
    """A predictor over three slots and an action, and which slots touch."""
    from tests.world_model.test_causal_jepa import noise, predictor

    contacts = torch.zeros(2, 3, 3, dtype=torch.bool)
    contacts[:, 0, 1] = True
    return {"predictor": predictor(), "nodes": noise(2, 3, 4, 8), "contacts": contacts}


def cloud(folder: Path) -> Names:
    """A cloud of 500 points and a small encoder."""
    np.save(folder / "scan.npy", np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32))
    sizes = PointSizes(width=12, depth=2, heads=2, mlp_dim=24, groups=8, group_size=4, net=(6, 8, 10), place=128)
    return {"encoder": point_encoder(sizes)}


def sound(folder: Path) -> Names:
    """A tap of a tenth of a second and a small encoder."""
    tap = np.random.default_rng(0).standard_normal(200) * np.exp(-np.arange(200) / 40)
    wavfile.write(folder / "tap.wav", 2000, tap.astype(np.float32))
    return {"encoder": audio_jepa.build(preset="tiny").published}


def thinker(folder: Path) -> Names:
    """A small system with guidance, a clip and what the thinker said of it."""
    from tests.world_model.test_think_jepa import batch, objective

    made, given = objective(), batch(worlds=1)
    save_features(folder / "clip.safetensors", made.features(given, given["frames"]))
    dense = made.encode(given["frames"][:, list(made.views.dense)])
    return {"objective": made, "batch": given, "dense": dense, "generator": generator(0)}


PREPARED: dict[str, Callable[[Path], Names]] = {
    "clip.mp4": film,
    "goal_left": robot,
    "exact_flow": scene,
    "load_chunk_policy": chunk_policy,
    "runs/causal_jepa": slots_model,
    "edge_recovery": interventions,
    "encode_cloud": cloud,
    "encode_sound": sound,
    "clip.safetensors": thinker,
}
"""A word of the program -> what must be there before it runs."""

RELEASED: dict[str, str] = {
    "lejepa_vits": "downloads the community's weights",
    "pusht_predictor.pt": "needs the authors' weights",
    "JEPA.ckpt": "needs the authors' weights",
    "pretrained.ckpt": "needs the authors' weights",
    "thinkjepa.pt": "needs the authors' weights",
}
"""Exceptions: a word of the program -> why no more than its imports are run; adapters have tests of their own."""


def prepare(code: str, folder: Path) -> Names:
    """Names and files for a program."""
    found: Names = {}
    for word, maker in PREPARED.items():
        if word in code:
            found |= maker(folder)
    return found


def runnable(code: str) -> str:
    """The program, or the imports of one that needs released weights."""
    if not any(word in code for word in RELEASED):
        return code
    return "\n".join(line for line in code.splitlines() if line.startswith(("import ", "from ")))
