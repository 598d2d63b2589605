"""Plans: every command of the shipped one exists with its options; steps are done once, in order, and are resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.cli import COMMANDS
from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands import workflow
from jepa_mpc.face.command_line import Stopped, run
from jepa_mpc.places import CONFIGS

ROOT = Path(__file__).resolve().parents[2]
WRITE = "import sys; open(sys.argv[2].partition('=')[2], 'a').write(sys.argv[1])"


@pytest.mark.parametrize("plan", sorted(path.stem for path in workflow.PLANS.glob("*.yaml")))
def test_the_commands_of_a_shipped_plan_compose(plan):
    steps = workflow.steps_of(plan, out="runs/x", seed=3)
    with initialize_config_dir(str(CONFIGS), version_base=None):
        made = [compose(COMMANDS[words[0]].script, words[1:]) for words in steps]
    assert [str(cfg.out).startswith("runs/x/") for cfg in made] == [True] * len(made)
    assert {cfg.seed for words, cfg in zip(steps, made, strict=True) if words[0] == "train"} == {3}
    written = [str(cfg.out) for cfg in made]
    read = [re.findall(r"runs/x/\w+", " ".join(words)) for words in steps]
    for at, names in enumerate(read):
        assert set(names) - {written[at]} <= set(written[:at]), "a step reads what no earlier one has written"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "RUN", WRITE)
    path = tmp_path / "plan.yaml"
    path.write_text("steps:\n  - collect out=${out}/a\n  - train out=${out}/b\n")
    folder = tmp_path / "run"
    folder.mkdir()
    return workflow.steps_of(str(path), out=str(folder), seed=0), folder


def test_a_finished_step_is_not_repeated(plan):
    steps, folder = plan
    for _ in range(2):
        minutes = workflow.work_off(steps, folder)
    assert (folder / "a").read_text() == "collect" and (folder / "b").read_text() == "train"
    assert len(minutes) == 2 and all(spent >= 0 for spent in minutes)
    assert json.loads((folder / "steps" / "01.json").read_text())["words"] == steps[0]


def test_a_step_done_with_other_words_is_refused(plan):
    steps, folder = plan
    workflow.work_off(steps[:1], folder)
    with pytest.raises(ValueError, match="step 1 .* choose a new folder"):
        workflow.work_off([[*steps[0], "labs=7"]], folder)


@pytest.mark.parametrize(
    "program, error", [("import sys; sys.exit(3)", ValueError), ("import sys; sys.exit(130)", Stopped)]
)
def test_what_stops_is_named_and_goes_on_there(plan, monkeypatch, program, error):
    steps, folder = plan
    workflow.work_off(steps[:1], folder)
    monkeypatch.setattr(workflow, "RUN", program)
    with pytest.raises(error, match="in step 2 of 2"):
        workflow.work_off(steps, folder)
    monkeypatch.setattr(workflow, "RUN", WRITE)
    stopped = json.loads((folder / "steps" / "02.json").read_text())
    minutes = workflow.work_off(steps, folder)
    assert (folder / "a").read_text() == "collect" and (folder / "b").read_text() == "train"
    assert not stopped["done"] and minutes[1] >= stopped["core_minutes"] > 0


@pytest.mark.parametrize("text", ["", "steps: []\n", "steps: collect\n", "steps: [3]\n"])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ValueError, match="needs `steps:`"):
        workflow.steps_of(str(tmp_path / "plan.yaml"), out="x", seed=0)


def test_unknown_plans_and_commands_are_named(tmp_path):
    (tmp_path / "plan.yaml").write_text("steps: [colect out=x]\n")
    with pytest.raises(UnknownName, match="collect"):
        workflow.steps_of(str(tmp_path / "plan.yaml"), out="x", seed=0)
    with pytest.raises(UnknownName, match="pick"):
        workflow.steps_of("pickk", out="x", seed=0)


def test_a_plan_that_is_no_yaml_ends_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "plan.yaml").write_text("steps: [collect")
    monkeypatch.setattr("sys.argv", ["workflow", f"plan={tmp_path / 'plan.yaml'}", f"out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match="workflow: while parsing a flow sequence") as ended:
        run(workflow.main, name="workflow")
    assert "\n" not in str(ended.value) and not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
def test_a_terminal_that_closes_ends_the_step_as_well(tmp_path):
    """The step gets the signal, may save, and is gone before the workflow is."""
    path = tmp_path / "plan.yaml"
    path.write_text("steps:\n  - collect out=${out}/a\n")
    step = f"""
import os, pathlib, time
from jepa_mpc.hangup import HungUp, end_on_hangup
end_on_hangup()
place = pathlib.Path({str(tmp_path)!r})
(place / "pid.part").write_text(str(os.getpid()))
os.rename(place / "pid.part", place / "pid")
try:
    time.sleep(60)
except HungUp:
    (place / "saved").touch()
    raise SystemExit(130)
"""
    program = f"""
import sys
from jepa_mpc.cli import script
from jepa_mpc.experiments.commands import workflow
workflow.RUN = {step!r}
sys.argv[1:] = [{f"plan={path}"!r}, {f"out={tmp_path / 'run'}"!r}]
script("workflow")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup it would be ignored
    )
    for _ in range(600):
        if (tmp_path / "pid").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "in step 1 of 1" in said, said
    assert (tmp_path / "saved").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
