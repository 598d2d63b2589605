"""What a stranger does first: gymnasium's names, an agent on its environment, a folder named like one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import jepa_mpc
from jepa_mpc.cli import script
from jepa_mpc.errors import BadCheckpoint
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]


def outside(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script from a folder of its own, as with an installed package."""
    (folder / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, str(folder / "script.py")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.render
@pytest.mark.parametrize(
    "code",
    [
        'import gymnasium\nenv = gymnasium.make("jepa_mpc.gym:reach-v1", image_size=16)',
        'import gymnasium, jepa_mpc\nenv = gymnasium.make("reach-v1", image_size=16)',
    ],
)
def test_gymnasium_makes_our_tasks_although_a_folder_of_the_user_is_called_envs(code, tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("raise RuntimeError('the wrong envs')")
    done = outside(f"{code}\nprint(env.reset(seed=0)[0]['frames'].shape)", tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "(6, 16, 16)", done.stderr


@pytest.mark.render
def test_an_agent_fits_the_environment_of_gymnasium(tmp_path):
    checkpoint = tiny.save(tmp_path / "model")
    env = gymnasium.make("jepa_mpc.gym:reach-v1", image_size=tiny.SIZE, budget=2)
    planner = {"_target_": "random_shooting", "num_samples": 8}
    agent = jepa_mpc.load_agent(env, checkpoint, kind="simple", horizon=1, planner=planner)
    observation, _ = env.reset(seed=0)
    agent.reset(observation)
    for _ in range(2):
        observation, reward, _, truncated, _ = env.step(agent.act(observation))
    assert truncated and reward < 0
    again = jepa_mpc.load_agent(env, checkpoint, kind="simple", horizon=1, planner=planner)
    (episode,) = jepa_mpc.evaluate(env, again, seeds=[0])
    assert len(episode.distances) == 3 and -reward == pytest.approx(episode.distances[-1])
    env.close()


@pytest.mark.render
def test_an_agent_that_handles_fits_its_environment(tmp_path):
    checkpoint = tiny.save_handling(tmp_path / "model")
    env = gymnasium.make("jepa_mpc.gym:pick-v1", image_size=tiny.SIZE, budget=2, protocol="final")
    agent = jepa_mpc.load_agent(env, checkpoint, horizon=1, planner={"_target_": "random_shooting", "num_samples": 8})
    observation, _ = env.reset(seed=0)
    agent.reset(observation)
    for _ in range(2):
        observation, _, _, truncated, _ = env.step(agent.act(observation))
    assert truncated and agent.last.goal.sensors.shape == (1, 10)
    (episode,) = jepa_mpc.evaluate(env, agent, seeds=[0])
    assert len(episode.distances) == 3
    with pytest.raises(ValueError, match="cost of its own"):
        jepa_mpc.load_agent(env, checkpoint, effort=0.1)
    with pytest.raises(ValueError, match="one seed"):
        jepa_mpc.load_agent(env, checkpoint, seed=[0, 1])
    env.close()
    smaller = jepa_mpc.make_env("pick-v1", image_size=tiny.SIZE // 2)
    with pytest.raises(BadCheckpoint, match="px"):
        jepa_mpc.load_agent(smaller, checkpoint)
    with pytest.raises(BadCheckpoint, match="pick-v1"):
        jepa_mpc.load_agent(jepa_mpc.make_env("reach-v1", image_size=tiny.SIZE), checkpoint)


def test_another_python_than_the_one_it_was_installed_for_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "jepa_mpc.experiments.commands.convert", raising=False)
    monkeypatch.setitem(sys.modules, "hydra", None)
    monkeypatch.setattr(sys, "argv", ["convert"])
    with pytest.raises(SystemExit, match=f"convert: {sys.executable} has no package hydra: use the Python"):
        script("convert")


def test_an_option_without_a_default_is_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["convert", "to=somewhere"])
    with pytest.raises(SystemExit, match="convert: source must be given: source=...; see --help"):
        script("convert")


def test_help_may_be_cut_short_by_its_reader(tmp_path):
    code = "from jepa_mpc.cli import main; import sys; sys.argv = ['jepa-mpc', 'train', '--help']; main()"
    end, start = os.pipe()
    os.close(end)  # the reader has left
    with os.fdopen(start, "wb") as broken:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdout=broken,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=600,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
