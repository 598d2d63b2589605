"""Commands as functions: their options are composed anywhere, also in a program that hydra runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.experiments.commands import workflow
from jepa_mpc.face.command_line import check_values, run
from jepa_mpc.face.commands import composed
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.places import CONFIGS


def test_options_are_composed_within_another_hydra_application():
    with initialize_config_dir(str(CONFIGS), version_base=None):
        before = compose("probe")
        assert composed("train", {"seed": 3, "fit": "motion"}).seed == 3
        assert compose("probe") == before
    assert composed("train", {}).seed == 0


def test_an_unknown_option_is_told_and_leaves_the_application_as_it_is():
    with initialize_config_dir(str(CONFIGS), version_base=None):
        with pytest.raises(ValueError, match="train: .*sed"):
            composed("train", {"sed": 3})
        assert compose("train").seed == 0


@pytest.mark.parametrize(
    ("script", "word", "message"),
    [
        ("features", "frames=inf", "frames must be a whole number, got inf"),
        ("collect", "workers=.nan", "workers must be a whole number, got"),
        ("collect", "steps=many", "steps must be a whole number, got 'many'"),
        ("zero_shot_reach", "budget=1e400", "budget must be a whole number, got inf"),
        ("zero_shot_reach", "hold_m=nan", "hold_m must be a number, got nan"),
        ("zero_shot_reach", "films=x", "films must be"),
        ("render_masks", "skip=-1", "skip must not be negative, got -1"),
        ("inspect_logs", "out=null", "out must name a file or folder, got None"),
        ("inspect_logs", "out=", "out must name a file or folder, got ''"),
        ("collect", "lab_seed=1.5", "lab_seed must be a whole number, got 1.5"),
        ("zero_shot_reach", "labs=99999999999999999999", "labs must be at most 1000000000"),
        ("features", "threads=0", "threads must be at least 1, got 0"),
        ("workflow", "dry=3", "dry must be true or false, got 3"),
    ],
)
def test_values_that_no_run_could_use_name_their_option(script, word, message):
    with pytest.raises(ValueError, match=message):
        check_values([word], CONFIGS / f"{script}.yaml")


def test_other_words_are_left_to_hydra():
    words = [
        "seed=3",
        "out=2024",
        "fit.steps=nan",
        "+x=inf",
        "~films",
        "--help",
        "deadline_ms=inf",
        "minutes=0.5",
        "lr=0.1=2",
    ]
    for script in ("serve", "train", "zero_shot_reach", "bench_encoders"):
        check_values(words[:-1], CONFIGS / f"{script}.yaml")
        check_values(words, CONFIGS / f"{script}.yaml")


def test_a_path_with_signs_is_told_how_to_be_written(monkeypatch):
    monkeypatch.setattr("sys.argv", ["workflow", "out=runs/lr=0.1"])
    with pytest.raises(SystemExit, match="quote what is not plain: \"out='runs/lr=0.1'\""):
        run(workflow.main, name="workflow")


@pytest.mark.parametrize(
    "wrong", [{"effort": float("nan")}, {"effort": -1.0}, {"hold_m": 1e308}, {"horizon": 2.5}, {"horizon": 0}]
)
def test_plans_need_sound_settings(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a"):
        PlanSettings(planner="cem", **wrong)
    PlanSettings(planner="cem", effort=np.float32(0.05), horizon=np.int64(2))  # numbers of NumPy are numbers


def test_an_error_that_nobody_foresees_is_one_sentence_and_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train"])
    with pytest.raises(SystemExit, match="train: KeyError: 'colour'. Nothing here foresees this") as ended:
        run(lambda: {}["colour"], name="train")
    (path,) = re.findall(r"report it with (\S+)", str(ended.value))
    assert "Traceback" in Path(path).read_text() and "\n" not in str(ended.value)
    Path(path).unlink()
