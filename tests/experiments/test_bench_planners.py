"""bench_planners.py: fair budgets, cells that are made once, tables that say what was measured."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jepa_mpc.envs import true_dynamics
from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands import bench_planners
from jepa_mpc.experiments.commands.bench_planners import CONFIGS, SHIPPED, bench
from jepa_mpc.experiments.evaluation.planners import code_fingerprint, finished_cells
from jepa_mpc.experiments.evaluation.planners.advice import across, advice
from jepa_mpc.experiments.evaluation.planners.cell_player import course_cost, play, task_at
from jepa_mpc.experiments.evaluation.planners.cells import Cell, Outcome
from jepa_mpc.experiments.evaluation.planners.planner_figures import pareto
from jepa_mpc.experiments.evaluation.planners.planner_page import markdown
from jepa_mpc.experiments.evaluation.planners.planner_table import table
from jepa_mpc.experiments.evaluation.planners.study import study_of, task_name
from jepa_mpc.planners import build_planner
from jepa_mpc.planners.budgets import evaluations_of
from jepa_mpc.types import ActionBox
from tests import tiny

BOX = ActionBox(low=-torch.ones(2), high=torch.ones(2))
TINY = ["tasks=[dmc-reacher-easy]", "planners=[cem,slope]", "budgets=[64]", "starts=2", "seeds=1", "workers=1"]
OUTPUTS = ("report.html", "results.json", "table.csv", "table.md")


def options(*overrides: str) -> dict:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base=None):
        return OmegaConf.to_container(compose("bench_planners", overrides=list(overrides)), resolve=True)


def config(*overrides: str):
    with initialize_config_dir(config_dir=str(CONFIGS), version_base=None):
        return compose("bench_planners", overrides=list(overrides))


def cell(**changes) -> Cell:
    plain = {
        "task": "dmc-reacher-easy-v1", "dynamics": "simulator", "mode": "open", "planner": "cem", "kind": "cem",
        "arguments": {"num_samples": 16, "num_elites": 4, "num_iterations": 2},
        "horizon": 4, "steps": 4, "execute": 4, "start": 0, "start_seed": 0, "seed": 0,
    }  # fmt: skip
    return Cell(**{**plain, **changes})


def outcome(cost: float, *, success: bool = True, **changes) -> Outcome:
    return Outcome(
        cell=cell(**changes), cost=cost, success=success, ever=success, solved_at_start=False,
        evaluations=(32,), wall_s=(0.5,), cpu_s=(0.25,), statuses={"max_iter": 1},
        curve=((16, 2.0, 0.1), (32, 1.0, 0.5)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Path, list[dict]]:
    """The folder that the tiny study leaves, and its rows."""
    folder = tmp_path_factory.mktemp("played") / "run"
    return folder, bench(config(*TINY, f"out={folder}"))


def test_a_cell_gives_the_same_numbers_whatever_was_played_before() -> None:
    first = play(cell())
    play(cell(start=1, seed=3))
    again = play(cell())
    assert (first.cost, first.believed, first.success) == (again.cost, again.believed, again.success)
    assert [point[:2] for point in first.curve] == [point[:2] for point in again.curve]


def test_the_open_plan_costs_what_the_search_believed() -> None:
    found = play(cell())
    assert found.cost == pytest.approx(found.believed, rel=1e-5)
    assert found.evaluations == (32,)


def test_closed_loops_search_at_every_step() -> None:
    found = play(cell(mode="closed", steps=3, execute=1))
    assert len(found.evaluations) == len(found.wall_s) == 3 and sum(found.statuses.values()) == 3


def test_the_cost_of_a_course_is_the_objective_of_its_actions() -> None:
    task = task_at("cart-pole-v1", None)
    task.reset(seed=0)
    goal, objective = task.goal(), task.objective()
    actions = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    sensors = []
    for action in actions:
        task.step(action)
        sensors.append(task.env.plant_sensors())
    expected = float(objective(torch.from_numpy(actions)[None, None])[0, 0])
    assert course_cost(task, np.array(sensors), actions, goal=goal) == pytest.approx(expected, rel=1e-5)


def test_a_run_leaves_table_figures_and_page_with_baselines(played) -> None:
    folder, rows = played
    assert {row["planner"] for row in rows} == {"cem", "slope", "nothing", "random"}
    assert all((folder / name).stat().st_size > 0 for name in OUTPUTS)
    assert {path.stem for path in (folder / "figures").iterdir()} == {"cost_over_evaluations", "quality_over_time"}
    with (folder / "table.csv").open() as file:
        assert [line["planner"] for line in csv.DictReader(file)] == [row["planner"] for row in rows]
    known = json.loads((folder / "results.json").read_text())
    assert known["facts"]["done"] == known["facts"]["cells"] == 8 and known["facts"]["commits"]
    assert min(row["regret"] for row in rows) >= 0


def test_the_same_command_goes_on_and_a_damaged_cell_is_made_again(played, tmp_path: Path, caplog) -> None:
    folder, first = shutil.copytree(played[0], tmp_path / "run"), played[1]
    files = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    victim = next(path for path in files if "cem" in path.name)
    victim.write_text(victim.read_text()[:40])
    second = bench(config(*TINY, f"out={folder}"))
    assert "damaged" in caplog.text
    rewritten = {path for path, time_ns in files.items() if path.stat().st_mtime_ns != time_ns}
    assert rewritten == {victim}
    assert [row["cost"] for row in first] == [row["cost"] for row in second]


def test_cells_of_a_planner_whose_code_changed_are_made_again(played, tmp_path: Path, caplog, monkeypatch) -> None:
    shutil.copytree(played[0], tmp_path / "run")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cells").iterdir()}
    changed = tmp_path / "planners"
    changed.mkdir()
    (changed / "cem.py").write_text("a new idea")
    monkeypatch.setattr(code_fingerprint, "PLANNERS", changed)
    code_fingerprint.fingerprint.cache_clear()
    try:
        bench(config(*TINY, f"out={tmp_path / 'run'}"))
    finally:
        code_fingerprint.fingerprint.cache_clear()
    assert "2 runs of cem were played by other code" in caplog.text
    again = {path for path, time_ns in files.items() if path.stat().st_mtime_ns != time_ns}
    assert again == {path for path in files if "nothing" not in path.name and "random" not in path.name}


def test_a_learned_world_is_planned_in_with_its_own_arm(tmp_path: Path) -> None:
    asked = ["tasks=[reach]", "planners=[cem]", "dynamics=learned", "starts=1", "seeds=1"]
    usual, other = tiny.save(tmp_path / "usual"), tiny.save(tmp_path / "other", embodiment="ur5e")
    studies = [
        study_of(options(*asked, f"checkpoint={folder}"), configs=CONFIGS, shipped=SHIPPED) for folder in (usual, other)
    ]
    assert [{each.robot for each in study.cells} for study in studies] == [{""}, {"ur5e"}]
    assert task_at("reach-v1", None, robot="ur5e").env.embodiment == "ur5e"


def test_cells_of_the_usual_arm_keep_the_names_of_their_files() -> None:
    facts = {name: value for name, value in dataclasses.asdict(cell()).items() if name != "robot"}
    text = json.dumps({"format": "planner-cell-v1", **facts}, sort_keys=True)
    assert cell().key == hashlib.sha256(text.encode()).hexdigest()[:16] != cell(robot="ur5e").key


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files other than a run of bench_planners"):
        bench(config(*TINY, f"out={tmp_path}"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_uncommitted_changes_are_part_of_the_fingerprint(monkeypatch) -> None:
    answers = {"diff": b"", "ls-files": b""}
    monkeypatch.setattr(code_fingerprint, "git", lambda name, *_: answers[name])
    assert code_fingerprint.uncommitted() == ""
    answers["diff"] = b"+ a line"
    assert len(code_fingerprint.uncommitted()) == 12


def test_a_narrower_command_keeps_the_wider_report(played, tmp_path: Path) -> None:
    folder, wide = shutil.copytree(played[0], tmp_path / "run"), played[1]
    narrow = bench(config(*TINY, "planners=[cem]", "starts=1", f"out={folder}"))
    told = [{row["planner"]: (row["runs"], row["cost"], row["regret"]) for row in rows} for rows in (wide, narrow)]
    assert told[0] == told[1]
    with pytest.raises(ValueError, match="runs of dmc-reacher-easy-v1 with horizon=15, this command has horizon=3"):
        bench(config(*TINY, "horizon=3", f"out={folder}"))
    other = bench(config(*TINY, "planners=[{planner: cem, min_std: 0.1}]", f"out={folder}"))
    assert {row["planner"]: row["runs"] for row in other} == {"cem": 2, "slope": 2, "nothing": 2, "random": 2}


def test_an_interrupt_leaves_a_partial_report_that_says_so(tmp_path: Path, monkeypatch) -> None:
    work_off = bench_planners.work_off

    def stopped(works, *, workers):
        yield from list(work_off(works[:3], workers=workers))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_planners, "work_off", stopped)
    with pytest.raises(KeyboardInterrupt, match="5 of 8 runs are missing"):
        bench(config(*TINY, f"out={tmp_path}"))
    for name in ("report.html", "results.json", "table.md"):
        assert "Partial: 5 of 8 runs are missing (interrupted" in (tmp_path / name).read_text()
    monkeypatch.undo()
    bench(config(*TINY, f"out={tmp_path}"))
    assert "Partial" not in (tmp_path / "report.html").read_text()


def test_shards_share_the_work_and_the_folder(tmp_path: Path) -> None:
    whole = options(*TINY)
    count = len(study_of(whole, configs=CONFIGS, shipped=SHIPPED).cells)
    bench(config(*TINY, f"out={tmp_path}", "shards=2", "shard=0"))
    half = len(list((tmp_path / "cells").iterdir()))
    rows = bench(config(*TINY, f"out={tmp_path}", "shards=2", "shard=1"))
    assert half == math.ceil(count / 2) and len(list((tmp_path / "cells").iterdir())) == count
    assert sum(row["runs"] for row in rows) == count


def test_regret_is_above_the_best_of_each_start() -> None:
    rows = table([outcome(1.0), outcome(3.0, start=1), outcome(2.0, planner="b"), outcome(2.5, planner="b", start=1)])
    assert [row["regret"] for row in rows] == [pytest.approx(0.25), pytest.approx(0.5)]
    assert (rows[0]["p50_ms"], rows[0]["evaluations"], rows[0]["success"]) == (500.0, 32.0, 1.0)


def test_seeds_of_one_start_count_as_one_when_success_is_judged() -> None:
    rows = table([outcome(1.0, seed=seed) for seed in range(40)])
    assert rows[0]["success"] == 1.0 and rows[0]["success_low"] < 0.25 and rows[0]["success_high"] == 1.0
    many = table([outcome(1.0, start=start, seed=seed) for start in range(20) for seed in range(2)])
    assert 0.8 < many[0]["success_low"] < 0.9


def test_the_time_of_few_plans_has_no_99th_percentile_and_is_told_in_plain_numbers() -> None:
    rows = table([outcome(1.0, seed=seed) for seed in range(6)])
    assert rows[0]["p99_ms"] is None and "p99" not in markdown(rows)
    slow = dataclasses.replace(outcome(1.0), wall_s=(10.5,) * 100, cpu_s=(0.0004,) * 100)
    assert "| 0.4 ms | 10.5 s | 10.5 s |" in markdown(table([slow]))


def test_a_learned_world_shows_what_was_believed_beside_what_was_true() -> None:
    known = dataclasses.replace(outcome(0.25, dynamics="learned"), believed=0.125)
    text = markdown(table([known]))
    assert "believed by the world model (its own unit)" in text and "| 0.1250 | 0.2500 |" in text
    assert "believed" not in markdown(table([dataclasses.replace(known, cell=cell())]))


def test_the_summary_ranks_within_a_budget_and_gives_one_advice() -> None:
    closed = {"mode": "closed", "execute": 1}
    played = []
    for task in ("dmc-reacher-easy-v1", "cart-pole-v1"):
        for budget, costs in ((128, {"good": 1.1, "poor": 3.0}), (512, {"good": 1.0, "poor": 2.0})):
            for name, cost in costs.items():
                each = outcome(cost, task=task, planner=name, budget=budget, **closed)
                played.append(dataclasses.replace(each, success=name == "good", cpu_s=(budget / 1000,)))
        played.append(
            outcome(4.0, task=task, planner="nothing", kind="nothing", baseline=True, success=False, **closed)
        )
    overall = across(table(played))
    good = next(row for row in overall if row["planner"] == "good" and row["budget"] == 512)
    assert (good["rank"], good["rivals"], good["success"], good["regret_share"]) == (1.0, 2, 1.0, 0.0)
    assert good["busy_ms"] == pytest.approx(512) and good["tasks"] == 2
    words = advice(overall)
    assert words.startswith("Take good with 512 evaluations") and "128" in words and "1 start" in words
    assert advice([row for row in overall if row["planner"] == "nobody"]) == ""


def test_a_broken_simulation_is_no_success_and_hides_no_mean() -> None:
    rows = table([outcome(1.0), outcome(math.inf, start=1, success=False)])
    assert rows[0]["broken"] == 1 and rows[0]["cost"] is None and rows[0]["success"] == 0.5
    assert "1 broke down" in markdown(rows)


def test_a_reference_is_compared_run_by_run() -> None:
    played = [outcome(1.0), outcome(2.0, start=1), outcome(0.5, planner="b"), outcome(1.0, planner="b", start=1)]
    rows = {row["planner"]: row for row in table(played, reference="cem")}
    assert rows["b"]["cost_to_reference"] == pytest.approx(0.5)
    assert rows["b"]["difference"] == pytest.approx(-0.75) and rows["b"]["difference_high"] <= -0.5
    assert rows["b"]["evaluations_to_reference"] == 1.0 and rows["cem"]["difference"] == 0.0


def test_a_cell_survives_its_file(tmp_path: Path) -> None:
    made = outcome(math.inf)
    made.save(tmp_path)
    assert finished_cells.read(tmp_path) == {made.cell.key: made}
    assert dataclasses.replace(made.cell, seed=9).key not in finished_cells.read(tmp_path)


def test_the_front_is_what_nothing_beats() -> None:
    assert pareto([(2, 2), (1, 3), (3, 2.5), (4, 1)]) == [(1, 3), (2, 2), (4, 1)]


def test_the_version_of_a_task_may_be_left_out() -> None:
    assert task_name("reach") == task_name("reach-v1") == "reach-v1"
    with pytest.raises(UnknownName, match="cart-pole-v1"):
        task_name("rea")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=half", "mode must be one of"),
        ("starts=0", "starts must be"),
        ("tasks=dmc-reacher-easy", "tasks must be a list"),
        ("budgets=[few]", "a budget is"),
        ("planners=[{label: nothing, planner: cem}]", "names of their own"),
        ("planners=[{planner: cem, num_sample: 3}]", "num_sample"),
        ("planners=[gradient]", "no planner is left"),
        ("dynamics=learned", "no planner is left"),
        ("reference=mppi", "the reference 'mppi' does not play"),
        ("budgets=[64,128] reference=cem", "must have one budget, got 2"),
        ("checkpoint=here", "planned in with dynamics=learned"),
        ("dynamics=bullet", "dynamics must be one of simulator, warp, stepping, learned"),
        ("shard=1", "shard must be"),
        ("mode=closed execute=99", "execute=99"),
    ],
)
def test_an_option_that_no_run_could_use_is_told_at_once(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study_of(options(*TINY, *override.split(" ")) if "{" not in override else options(*TINY, override),
                 configs=CONFIGS, shipped=SHIPPED)  # fmt: skip


def test_another_simulator_is_planned_in_and_the_baselines_stay_where_they_were(monkeypatch) -> None:
    made = []
    plain = true_dynamics.DYNAMICS["simulator"]
    monkeypatch.setitem(true_dynamics.DYNAMICS, "warp", lambda env, threads: made.append(env) or plain(env, threads))
    study = study_of(options(*TINY, "dynamics=warp"), configs=CONFIGS, shipped=SHIPPED)
    assert {each.dynamics for each in study.cells if not each.baseline} == {"warp"} and made
    assert {each.dynamics for each in study.cells if each.baseline} == {"simulator"}
    played = [play(cell(dynamics=name)).cost for name in ("simulator", "warp")]
    assert played[0] == played[1]


def test_the_study_of_the_default_planner_has_its_reference_and_hundred_runs_each() -> None:
    chosen = options("study=reach_budget", "planners=[{label: CEM 300x30, planner: cem, budgets: [default]}]")
    study = study_of(chosen, configs=CONFIGS, shipped=SHIPPED)
    assert chosen["reference"] == "CEM 300x30"
    assert sum(not each.baseline for each in study.cells) == 100
    entry = options("study=reach_budget")["planners"][0]
    assert (
        evaluations_of(
            build_planner("cem", {k: v for k, v in entry.items() if k.startswith("num_")}), box=BOX, horizon=8
        )
        == 9000
    )


@pytest.mark.parametrize("name", ["joblib", "slurm", "ray"])
def test_launchers_compose_where_their_plugin_is_installed(name: str) -> None:
    plugin = {"joblib": "hydra_joblib_launcher", "slurm": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}[name]
    pytest.importorskip(f"hydra_plugins.{plugin}")
    with initialize_config_dir(config_dir=str(CONFIGS), version_base=None):
        made = compose("bench_planners", [f"+launch={name}", "shards=4", "shard=3"], return_hydra_config=True)
    assert plugin in made.hydra.launcher._target_ and made.shard == 3


@pytest.mark.render
def test_a_learned_world_plans_and_the_true_task_judges() -> None:
    study = study_of(
        options(
            "tasks=[reach]",
            "dynamics=learned",
            "planners=[gradient]",
            "budgets=[32]",
            "starts=1",
            "seeds=1",
            "horizon=2",
        ),
        configs=CONFIGS,
        shipped=SHIPPED,
    )
    found = play(study.cells[0], study.checkpoint)
    still = play(next(each for each in study.cells if each.kind == "nothing"), study.checkpoint)
    assert found.cost < still.cost and found.believed != found.cost


def test_an_early_end_is_paid_for_to_the_last_step():
    def random_pushes(steps: int) -> Outcome:
        settings = {"planner": "random", "kind": "random", "arguments": {}, "mode": "closed", "baseline": True}
        return play(cell(task="gym:InvertedPendulum-v5", steps=steps, execute=1, **settings))

    short, long = random_pushes(10), random_pushes(60)
    assert long.cost > 1.05 * short.cost  # the fallen pole counts in every further step
