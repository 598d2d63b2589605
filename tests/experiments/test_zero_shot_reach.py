"""The whole command, with a world model that was never trained, and every mistake that a stranger can make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.experiments.commands import zero_shot_reach
from jepa_mpc.runs import origin
from tests import tiny
from tests.commands import command

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "zero_shot_reach.py"
TINY = [
    "labs=2",
    "episodes=1",
    "budget=2",
    "horizon=1",
    "workers=1",
    "planner=random_shooting",
    "planner.num_samples=8",
]
METHODS = ["do nothing", "frozen random encoder", "oracle", "random", "servo", "true dynamics"]
SUMMARY = {
    "episodes", "labs", "success_5cm", "success_2cm", "held_success_5cm", "wilson_95", "interval_95",
    "median_final_distance_m", "ms_per_step_p50", "ms_per_step_p95", "solved_at_start",
}  # fmt: skip
PROTOCOL = {
    "thresholds_m", "budget_steps", "seeds", "lab_seed", "lab_list_hash", "checkpoint_hash", "planner", "split",
    "cameras", "versions", "commit", "command", "level", "control_hash",
}  # fmt: skip
TIMES = ("ms_per_step", "ms_per_step_p50", "ms_per_step_p95")


def reach(*options: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder of its own."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def refused(*options: str, cwd: Path, words: str, **environment: str) -> None:
    """The command answers with one sentence that holds the words, and leaves nothing behind."""
    before = sorted(cwd.rglob("*"))
    done = reach(*options, cwd=cwd, **environment)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1 and done.stdout == "", done.stderr
    assert len(lines) == 1 and lines[0].startswith("zero_shot_reach: ") and words in lines[0], done.stderr
    assert sorted(cwd.rglob("*")) == before


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("checkpoints") / "model")


@pytest.fixture(scope="module")
def played(renderable, checkpoint, tmp_path_factory):
    """The folder that the command leaves, and what it said."""
    cwd = tmp_path_factory.mktemp("played")
    control = tiny.save(cwd / "control", seed=1)
    done = reach(*TINY, f"checkpoint={checkpoint}", f"control={control}", "out=run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "run", done


@pytest.fixture(scope="module")
def report(played):
    return json.loads((played[0] / "report.json").read_text())


@pytest.mark.render
def test_the_run_folder_holds_films_figures_sheet_and_page(played):
    folder, done = played
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "contact_sheet.png", "figures", "labs", "report.html", "report.json", "run.json", "videos",
    ]  # fmt: skip
    films = ["look-000.mp4", "look-000.png", "look-001.mp4", "look-001.png"]  # each with its poster
    assert sorted(path.name for path in (folder / "videos").iterdir()) == films
    assert all(
        path.stat().st_size > 1000 for kind in ("png", "html", "mp4", "npz") for path in folder.rglob(f"*.{kind}")
    )
    assert {path.stem for path in (folder / "figures").iterdir()} >= {"distance_over_steps", "success_over_threshold"}
    assert "report.html" in done.stdout and "world model" in done.stdout
    assert sorted(path.name for path in folder.parent.iterdir()) == ["control", "run"]


@pytest.mark.render
def test_the_report_has_every_number_that_was_promised(report):
    assert report["summary"].keys() >= SUMMARY and report["protocol"].keys() >= PROTOCOL
    assert report["summary"]["episodes"] == report["summary"]["labs"] == 2
    assert all(report["protocol"][key] not in (None, "", [], {}) for key in PROTOCOL)
    assert report["protocol"]["thresholds_m"] == [0.05, 0.02]


@pytest.mark.render
def test_every_baseline_stands_beside_the_score(report):
    assert sorted(report["baselines"]) == METHODS
    assert all(row["episodes"] == 2 and row.keys() >= SUMMARY for row in report["baselines"].values())


@pytest.mark.render
def test_all_methods_play_the_same_episodes(report):
    played = {}
    for episode in report["episodes"]:
        key = (episode["lab"], episode["seed"], *episode["start_m"], *episode["goal_m"], episode["distances_m"][0])
        played.setdefault(episode["method"], set()).add(key)
    assert len(played) == 1 + len(METHODS) and len(set(map(frozenset, played.values()))) == 1


@pytest.mark.render
def test_every_episode_is_told_whole(report):
    for episode in report["episodes"]:
        assert len(episode["distances_m"]) == 3 and len(episode["ms_per_step"]) == 2
        assert episode["success_5cm"] == (episode["distances_m"][-1] <= 0.05)
    films = [episode["video"] for episode in report["episodes"] if episode["method"] == "world model"]
    assert films == ["videos/look-000.mp4", "videos/look-001.mp4"]


@pytest.mark.render
def test_the_same_command_gives_the_same_numbers(played, report, checkpoint, tmp_path):
    """With two processes and without films: neither may matter."""
    control = played[0].parent / "control"
    options = [*TINY, f"checkpoint={checkpoint}", f"control={control}", "out=run", "workers=2", "films=false"]
    assert command("zero_shot_reach", *options, cwd=tmp_path).returncode == 0
    again = json.loads((tmp_path / "run" / "report.json").read_text())
    for part in ("summary", "baselines", "comparisons"):
        assert timeless(again[part]) == timeless(report[part])
    first, second = (sorted(map(episode_line, content["episodes"])) for content in (report, again))
    assert first == second
    assert again["protocol"]["lab_list_hash"] == report["protocol"]["lab_list_hash"]


@pytest.mark.render
def test_a_run_goes_on_where_it_stopped_and_refuses_other_settings(played, report, checkpoint, tmp_path):
    """One of two labs is missing, as after a kill: the other one's times tell that it was not played again."""
    shutil.copytree(played[0], tmp_path / "run")
    (tmp_path / "run" / "labs" / "look-001.npz").unlink()
    (tmp_path / "run" / "report.json").unlink()
    control = played[0].parent / "control"
    options = [*TINY, f"checkpoint={checkpoint}", f"control={control}"]
    done = command("zero_shot_reach", *options, "out=run", "labs=3", cwd=tmp_path)
    assert done.returncode == 1 and "other settings of lab_list_hash, labs: choose a new folder" in done.stderr
    assert command("zero_shot_reach", *options, "out=run", cwd=tmp_path).returncode == 0
    again = json.loads((tmp_path / "run" / "report.json").read_text())
    times = [[e["ms_per_step"] for e in content["episodes"] if e["lab_index"] == 0] for content in (report, again)]
    assert times[0] == times[1]
    assert sorted(map(episode_line, report["episodes"])) == sorted(map(episode_line, again["episodes"]))


@pytest.mark.render
def test_a_folder_with_other_files_is_refused(checkpoint, tmp_path, in_process):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "work").mkdir()
    words = "holds files other than a run of zero_shot_reach (notes.txt): choose a new folder"
    in_process([*TINY, f"checkpoint={checkpoint}", f"out={tmp_path}/mine"], words, tmp_path / "work")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in TIMES}
    return value


def episode_line(episode: dict) -> str:
    return json.dumps({**timeless(episode), "video": None}, sort_keys=True)


@pytest.mark.parametrize(
    "options, words",
    [
        (["labz=3"], "there is no option 'labz'; known: planner, agent, out, labs"),
        (["+labz=3"], "there is no option 'labz'; known: baselines"),
        (["--labs=3"], "without dashes: labs=3"),
        (["labs"], "cannot parse 'labs': options are written option=value"),
        (["split=moon"], "unknown split 'moon'; known: all, base, camera"),
        (["level=train"], "level must be held, validation or dev, got 'train'"),
        (["planner=hope"], "unknown planner 'hope'; known: cem, "),
        (["planner.luck=3"], "there is no option 'planner.luck'; known: num_samples"),
        (["+planner.luck=3"], "unexpected keyword argument 'luck'"),
        (["planner.num_samples=0"], "num_samples >= "),
        (["planner._target_=os.system"], "unknown planner 'system'"),
        (["labs=0"], "labs must be a whole number from 1, got 0"),
        (["episodes=-1"], "episodes must not be negative, got -1"),
        (["budget=2.5"], "budget must be a whole number, got 2.5"),
        (["horizon=far"], "horizon must be a whole number, got 'far'"),
        (["workers=true"], "workers must be a whole number from 1, got True"),
        (["lab_seed=x"], "lab_seed must be a whole number, got 'x'"),
        (["hold_m=-0.1"], "hold_m must not be negative, got -0.1"),
        (["effort=nan"], "effort must be a number, got nan"),
        (["films=perhaps"], "films must be true or false, got 'perhaps'"),
        (["cameras=3"], "unknown cameras '3'; known: 1, 2"),
        (["device=abacus"], "unknown device 'abacus'"),
        (["device=meta"], "device=meta is not supported"),
        (["device=cuda:99"], "usable GPUs here; use device=cpu"),
        (["checkpoint=nowhere"], "there is no checkpoint at nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistaken_option_is_told_in_one_sentence(options, words, tmp_path, in_process):
    in_process(options, words, tmp_path)


@pytest.fixture
def in_process(monkeypatch, capsys):
    """As `refused`, in this process: a tenth of the time. The subprocesses below show that it is the same."""
    import jepa_mpc.experiments.commands.zero_shot_reach as script  # here, for `conftest` has to set the path first
    from jepa_mpc.face.command_line import run

    def check(options, words, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
        with pytest.raises(SystemExit) as caught:
            run(script.main, name="zero_shot_reach")
        told = str(caught.value.code)
        assert words in told and "\n" not in told and told.startswith("zero_shot_reach: ")
        assert capsys.readouterr().out == "" and not list(cwd.iterdir())

    return check


def broken_copy(checkpoint: Path, place: Path, change) -> Path:
    """A valid checkpoint of the same weights that says something else about itself."""
    tensors, config = load_checkpoint(checkpoint)
    change(config)
    save_checkpoint(place, tensors, config)
    return place


@pytest.mark.render
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["interface"].update(actions=["dx"] * 6), "does not fit its own interface"),
        (lambda c: c["interface"].update(cameras=["wrist", "right"]), "unknown camera 'wrist'; known: left, right"),
        (lambda c: c["interface"].update(image_size=5), "need image_size >= 8"),
        (lambda c: c["interface"].update(image_size=1024), "image size 1024 is too large"),
        (lambda c: c["interface"].update(dt_s=0.1), "steps of 0.1 s, the robot has steps of 0.24 s"),
        (lambda c: c["system"].update(encoder={"_target_": "os.system"}), "unknown part 'os.system'"),
    ],
    ids=["actions", "camera", "too small", "too large", "time step", "target"],
)
def test_a_checkpoint_for_something_else_is_refused(change, words, checkpoint, tmp_path, in_process):
    place = broken_copy(checkpoint, tmp_path / "models" / "odd", change)
    (tmp_path / "work").mkdir()
    in_process([*TINY, f"checkpoint={place}", "out=run"], words, tmp_path / "work")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused(damage, checkpoint, tmp_path, in_process):
    place = broken_copy(checkpoint, tmp_path / "model", lambda config: None)
    data = bytearray((place / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "model.safetensors").write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    (tmp_path / "work").mkdir()
    words = "cut short" if damage == "truncated" else "is damaged: its SHA-256 differs"
    in_process([*TINY, f"checkpoint={place}", "out=run"], words, tmp_path / "work")


@pytest.mark.render
def test_a_control_with_other_eyes_is_refused_before_the_work(checkpoint, tmp_path, in_process):
    control = broken_copy(checkpoint, tmp_path / "control", lambda c: c["interface"].update(image_size=48))
    (tmp_path / "work").mkdir()
    options = [*TINY, f"checkpoint={checkpoint}", f"control={control}", "out=run"]
    in_process(options, "images of 48 px, the robot provides 128 px", tmp_path / "work")


@pytest.mark.render
def test_a_damaged_album_is_refused_before_the_work(checkpoint, tmp_path, in_process):
    place = broken_copy(checkpoint, tmp_path / "model", lambda config: None)
    (place / "album.jpg").write_bytes(b"no picture")
    (place / "album.json").write_text('{"size": 8, "places_m": [[0, 0, 0]]}')
    (tmp_path / "work").mkdir()
    in_process([*TINY, f"checkpoint={place}", "out=run"], "the album in", tmp_path / "work")


@pytest.mark.render
def test_a_place_that_cannot_be_written_is_told_before_the_work(checkpoint, tmp_path, in_process):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "work").mkdir()
    options = [*TINY, f"checkpoint={checkpoint}", f"out={tmp_path}/file/run"]
    in_process(options, f"cannot write to out={tmp_path}/file/run: Not a directory", tmp_path / "work")


def test_an_interrupted_run_says_where_it_stopped_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    import jepa_mpc.experiments.commands.zero_shot_reach as script
    from jepa_mpc.face.command_line import run
    from jepa_mpc.face.evaluation.finished_labs import FinishedLabs

    def interrupted(jobs, *, workers):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(script, "play_all", interrupted)
    monkeypatch.setattr(sys, "argv", ["zero_shot_reach"])
    with pytest.raises(SystemExit) as ended:
        run(lambda: script.play([], workers=1, finished=FinishedLabs(tmp_path)), name="zero_shot_reach")
    said = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 130 and f"the same command with out={tmp_path} to resume" in said


@pytest.mark.parametrize(
    ("planner", "stands_in"),
    [*((name, False) for name in ("icem", "mppi", "cma", "slope", "hand_cem")), ("gradient", True), ("grad_cem", True)],
)
def test_true_dynamics_get_the_same_planner_unless_it_needs_gradients(planner, stands_in):
    with initialize_config_dir(config_dir=str(zero_shot_reach.CONFIGS), version_base=None):
        cfg = compose("zero_shot_reach", [f"planner={planner}", "out=unused"])
    settings, sampling, reason = zero_shot_reach.main_settings(cfg)
    assert settings.planner == planner
    assert sampling.planner == ("cem" if stands_in else planner) and (sampling == settings) != stands_in
    told = zero_shot_reach.true_planner(cfg)
    assert (planner in told and "gradient" in reason) if stands_in else told == "the same planner"


def test_a_machine_without_git_is_fine(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert origin.commit() == "unknown"


@pytest.mark.parametrize("backend", ["disable", "nonsense"])
def test_missing_opengl_names_the_variable(backend, checkpoint, tmp_path):
    if find_spec("mujoco_warp") is not None:
        pytest.skip("the ray-caster draws here without OpenGL")
    options = [*TINY, f"checkpoint={checkpoint}", "out=run"]
    refused(*options, cwd=tmp_path, MUJOCO_GL=backend, MUJOCO_GL_GIVEN=f"MUJOCO_GL={backend}", words="unset MUJOCO_GL")
