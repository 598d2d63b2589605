"""zero_shot_pick.py: a report from a world model that was never trained, resumed, and mistakes that are told."""

from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands import zero_shot_pick
from jepa_mpc.experiments.evaluation.handling.headroom_table import pick_rows
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.places import CONFIGS
from tests import tiny
from tests.commands import command

TINY = ["labs=1", "episodes=1", "budget=2", "horizon=1", "num_samples=8", "num_iterations=1", "workers=1"]


def pick(folder, *options):
    return command("zero_shot_pick", f"out={folder}", *options, cwd=folder.parent)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.save_handling(tmp_path_factory.mktemp("handling") / "model")


def test_a_run_leaves_a_report_and_a_film_and_goes_on_where_it_was_stopped(tmp_path, checkpoint):
    folder, options = tmp_path / "run", [f"checkpoint={checkpoint}", f"control={checkpoint}", "ablate=true", *TINY]
    first = pick(folder, *options)
    assert first.returncode == 0, first.stderr
    report = json.loads((folder / "report.json").read_text())
    assert {"episodes", "grasp", "reach_with_object", "place", "wilson_95", "grip"} <= report["summary"].keys()
    assert set(report["summary"]["wilson_95"]) == {"grasp", "reach_with_object", "place"}
    assert {"servo", "relative servo", "still world", "blind", "frozen random encoder", "oracle", "random"} <= set(
        report["baselines"]
    )
    assert {"predictor off", "object term off", "latent distance"} <= set(report["baselines"])
    (film,) = (folder / "videos").glob("*.mp4")
    assert film.stat().st_size > 1000
    page = (folder / "report.html").read_text()
    assert f"videos/{film.name}" in page and "relative servo" in page and (folder / "figures/rates.png").exists()
    played = {path: path.stat().st_mtime_ns for path in (folder / "episodes").iterdir()}
    second = pick(folder, *options)
    assert second.returncode == 0 and {path: path.stat().st_mtime_ns for path in played} == played


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["protocol=throw"], "throw"),
        (["object=ball"], "ball"),
        (["cameras=2"], "cameras"),
        (["labs=0"], "labs"),
        (["level=hard"], "level"),
        (["protocol=images", "budget=5"], "budget"),
        (["compare={servo: runs/other}"], "names of its own.*'servo'"),
        (["compare={a/b: runs/other}"], "names of its own.*'a/b'"),
    ],
)
def test_options_that_no_run_could_use_are_refused(options, words):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("zero_shot_pick", overrides=["out=run", *options])
    with pytest.raises((UnknownName, ValueError), match=words):
        zero_shot_pick.check_options(cfg)


def test_a_missing_checkpoint_is_told_in_a_sentence(tmp_path):
    result = pick(tmp_path / "run", "checkpoint=/nowhere")
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.returncode == 1 and len(lines) == 1 and "/nowhere" in lines[0], result.stderr


def made_up(places: list[bool]):
    return [
        {
            "cell": {"lab": number, "episode": 0},
            "grasp": place,
            "reach": place,
            "place": place,
            "error": "",
            "cpu_s": 1.0,
        }
        for number, place in enumerate(places)
    ]


@pytest.mark.parametrize("option", ["checkpoint", "control"])
def test_a_checkpoint_without_the_heads_is_refused_before_anything_is_played_or_written(tmp_path, checkpoint, option):
    reach = tiny.save(tmp_path / "reach")
    options = {"checkpoint": checkpoint} | {option: reach}
    done = pick(tmp_path / "run", *(f"{name}={place}" for name, place in options.items()), *TINY)
    assert done.returncode == 1 and "picking:" not in done.stderr and not (tmp_path / "run").exists()
    assert "this world model lacks object, grip, held" in done.stderr and "train system=handling" in done.stderr


def test_leads_are_counted_on_the_episodes_that_both_have_played():
    rows, ahead = pick_rows(
        {"world model": made_up([True, True, False]), "blind": made_up([False, True])}, best="world model"
    )
    assert rows["world model"]["reach_with_object"] == pytest.approx(2 / 3)
    assert [(row["over"], row["rate"], row["episodes"], row["points"]) for row in ahead] == [
        ("blind", "grasp", 2, 50.0),
        ("blind", "place", 2, 50.0),
    ]


def test_another_system_plays_the_same_episodes_by_its_own_distance(tmp_path, checkpoint):
    reach = tiny.save(tmp_path / "reach")
    options = [f"checkpoint={checkpoint}", f"compare={{Reach-JEPA: {reach}}}", "baselines=false", "films=false"]
    done = pick(tmp_path / "run", *options, *TINY)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report["baselines"]) == {"Reach-JEPA"} and report["baselines"]["Reach-JEPA"]["episodes"] == 1
    episodes = sorted(path.name for path in (tmp_path / "run" / "episodes").iterdir())
    assert episodes == ["Reach-JEPA-000-0.json", "world_model-000-0.json"]
    played = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "episodes").iterdir()}
    tiny.save(reach, seed=1)
    again = pick(tmp_path / "run", *options, *TINY)
    assert again.returncode == 0, again.stderr
    renewed = [path.name for path, moment in played.items() if path.stat().st_mtime_ns != moment]
    assert renewed == ["Reach-JEPA-000-0.json"]  # other weights under the same name


def test_another_model_that_handles_plays_as_the_first_one_does(tmp_path, checkpoint):
    options = [f"checkpoint={checkpoint}", f"compare={{twin: {checkpoint}}}", "baselines=false", "films=false"]
    done = pick(tmp_path / "run", *options, *TINY)
    assert done.returncode == 0, done.stderr
    first, twin = (
        json.loads((tmp_path / "run" / "episodes" / f"{name}-000-0.json").read_text())
        for name in ("world_model", "twin")
    )
    assert first["distance_m"] == twin["distance_m"]


def test_a_system_with_cameras_that_the_task_lacks_is_refused(tmp_path, checkpoint):
    other = tiny.save(tmp_path / "other", cameras=("left", "top"))
    options = [f"checkpoint={checkpoint}", f"compare={{other: {other}}}"]
    done = pick(tmp_path / "run", *options, *TINY)
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert "sees the camera top, pick-v1 has left, right, wrist" in done.stderr


def test_an_interrupted_run_says_how_far_it_came(tmp_path, checkpoint, monkeypatch):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("zero_shot_pick", overrides=[f"out={tmp_path}", f"checkpoint={checkpoint}", "baselines=false"])
    works = zero_shot_pick.works_of(cfg)

    def halted(work_cell, missing, *, workers):
        yield {"cell": {"agent": "world model"}}
        raise KeyboardInterrupt

    monkeypatch.setattr(zero_shot_pick, "in_processes", halted)
    with pytest.raises(Stopped, match=f"after 1 of {len(works)} episodes: run the same command to resume"):
        zero_shot_pick.play(works, tmp_path, workers=1)
