"""Commands leave a folder alone that is not a run of theirs, before they read or measure anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.experiments.commands import (
    bench_encoders,
    bench_flow,
    bench_loading,
    bench_objects,
    bench_planners,
    bench_rollout,
    bench_sensors,
    bench_speed,
    energy_landscape,
)
from jepa_mpc.face.training.critic_training import train_critic
from jepa_mpc.face.training.policy_training import train_policy
from jepa_mpc.places import CONFIGS

RUNS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "bench_encoders": (bench_encoders.bench, []),
    "bench_flow": (bench_flow.bench, []),
    "bench_loading": (bench_loading.bench, []),
    "bench_objects": (bench_objects.bench, []),
    "bench_planners": (bench_planners.bench, ["tasks=[dmc-reacher-easy]", "planners=[cem]"]),
    "bench_rollout": (bench_rollout.bench, []),
    "bench_sensors": (bench_sensors.bench, []),
    "bench_speed": (bench_speed.bench, []),
    "energy_landscape": (energy_landscape.study, ["checkpoint=nowhere"]),
    "train_policy": (train_policy, ["data=nowhere", "model=nowhere"]),
    "train_critic": (train_critic, ["data=nowhere", "model=nowhere"]),
}


@pytest.mark.parametrize("command", RUNS)
def test_a_folder_of_somebody_else_is_refused(command: str, tmp_path: Path) -> None:
    run, options = RUNS[command]
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose(command, [*options, f"out={tmp_path}"])
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=f"holds files other than a run of {command}"):
        run(cfg)
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "run.json").write_text(json.dumps({"command": "probe", "settings": {}}))
    with pytest.raises(ValueError, match="holds a run of probe: choose a new folder"):
        run(cfg)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
