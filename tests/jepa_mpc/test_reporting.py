"""Reports tell the truth about their episodes, and are written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jepa_mpc.reporting import figures
from jepa_mpc.reporting.contact_sheet import Tile, contact_sheet
from jepa_mpc.reporting.intervals import (
    area_under_curve,
    cluster_bootstrap,
    difference_interval,
    holm,
    mcnemar,
    quantiles,
    rate_interval,
    success_curve,
    wilson,
)
from jepa_mpc.reporting.record import EpisodeRecord, Protocol, Report
from jepa_mpc.reporting.report_folder import write_folder
from jepa_mpc.reporting.summary import make_report, summarise

NASTY = 'lab <script>alert("1")</script> & co'


def episode(distances=(0.3, 0.1, 0.04, 0.03, 0.01), **changes):
    given = {
        "method": "world model",
        "lab": "lab 0",
        "lab_index": 0,
        "split": "look",
        "seed": 0,
        "start_m": (0.4, 0.0, 0.2),
        "goal_m": (0.5, 0.1, 0.3),
        "ms_per_step": (10.0, 20.0),
        "statuses": ("max_iter", "converged"),
    }
    return EpisodeRecord.judged(distances_m=distances, **{**given, **changes})


def protocol(**changes):
    given = {
        "method": "world model",
        "split": "look",
        "labs": 2,
        "episodes_per_lab": 2,
        "lab_seed": 7,
        "seeds": (0, 1),
        "budget_steps": 4,
        "cameras": ("front", "side"),
        "planner": {"name": "cem", "samples": 64},
        "lab_list_hash": "a" * 64,
        "checkpoint_hash": "b" * 64,
        "command": "run --with <angle> & more",
    }
    return Protocol(**{**given, **changes})


def few_episodes():
    records = []
    for lab in range(2):
        for seed in range(2):
            where = {"lab": f"lab {lab}", "lab_index": lab, "seed": seed}
            records.append(episode(**where, imagined_m=(0.2, 0.1, 0.05, 0.02, 0.01), video=f"videos/lab {lab}.mp4"))
            records.append(episode((0.3,) * 5, method="do nothing", ms_per_step=(), **where))
            records.append(episode((0.3, 0.2, 0.08), split="camera_azimuth", **where))
    return records


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(10, 10, 0.722, 1), (44, 50, 0.762, 0.944), (180, 200, 0.851, 0.934), (190, 200, 0.910, 0.973),
     (270, 300, 0.861, 0.929), (160, 200, 0.739, 0.850), (0, 10, 0, 0.278)],
)  # fmt: skip
def test_wilson_gives_the_worked_examples(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=6e-4)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, trials)


def test_bootstrap_over_single_episode_labs_agrees_with_wilson():
    values = [True] * 160 + [False] * 40
    low, high = cluster_bootstrap(values, range(200), generator=np.random.default_rng(0))
    assert (low, high) == pytest.approx((0.745, 0.855), abs=0.01)  # p +- 1.96 sqrt(p (1 - p) / n)


def test_bootstrap_is_wider_where_labs_succeed_or_fail_as_a_whole():
    values = np.repeat([True, False], [160, 40])
    alone = cluster_bootstrap(values, range(200), generator=np.random.default_rng(0))
    together = cluster_bootstrap(values, [index // 5 for index in range(200)], generator=np.random.default_rng(0))
    ratio = (together[1] - together[0]) / (alone[1] - alone[0])
    assert ratio == pytest.approx(math.sqrt(5), rel=0.15)  # five equal episodes tell as much as one


def test_bootstrap_is_the_same_for_the_same_seed_and_weighs_episodes_not_labs():
    values, labs = [1, 1, 1, 0], ["a", "a", "a", "b"]
    first, second = (cluster_bootstrap(values, labs, generator=np.random.default_rng(5)) for _ in range(2))
    assert first == second == (0.0, 1.0)


def test_intervals_have_a_width_where_all_episodes_end_alike():
    chance = np.random.default_rng(0)
    assert rate_interval([True] * 20, range(20), generator=chance) == wilson(20, 20)
    assert rate_interval([False] * 20, range(20), generator=chance) == wilson(0, 20)
    assert difference_interval([1] * 20, range(20), generator=chance) == wilson(20, 20)
    assert difference_interval([-1] * 20, range(20), generator=chance) == tuple(-x for x in reversed(wilson(20, 20)))
    least, most = difference_interval([0] * 20, range(20), generator=chance)
    assert -least == most == wilson(0, 20)[1]
    page = make_report(protocol(), [episode(seed=seed) for seed in range(20)])
    assert page.summary["interval_95"] == pytest.approx(wilson(20, 20))


def test_bootstrap_refuses_labels_that_do_not_match():
    with pytest.raises(ValueError, match="one cluster label per value"):
        cluster_bootstrap([1, 0], ["a"], generator=np.random.default_rng(0))


def test_mcnemar_counts_only_the_episodes_on_which_methods_differ():
    assert mcnemar([True] * 8 + [False] * 50, [False] * 58) == pytest.approx(2 / 2**8)
    assert mcnemar([True, False], [False, True]) == 1.0
    assert mcnemar([True] * 5, [True] * 5) == 1.0
    with pytest.raises(ValueError, match="one length"):
        mcnemar([True], [])


def test_holm_gives_a_hand_computed_example():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_success_curve_rises_and_never_counts_a_diverged_episode():
    curve = success_curve([0.01, 0.05, 0.3, math.inf], [0.0, 0.02, 0.05, 1.0])
    assert curve.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_quantiles_agree_with_numpy_and_bear_infinite_values():
    values = np.random.default_rng(0).normal(size=(17, 3))
    assert np.allclose(quantiles(values, [0.0, 0.3, 1.0]), np.quantile(values, [0.0, 0.3, 1.0], axis=0))
    assert quantiles([0.0, 1.0, math.inf], [0.25, 0.5, 0.75]).tolist() == [0.5, 1.0, math.inf]


def test_the_area_is_that_under_the_curve():
    final = np.random.default_rng(0).uniform(0, 0.3, 50)
    limits = np.linspace(0, 0.2, 20_001)
    assert area_under_curve(final) == pytest.approx(success_curve(final, limits).mean(), abs=1e-3)
    assert area_under_curve([math.inf, 0.0]) == 0.5


def test_success_is_judged_on_the_final_pose():
    passed_by = episode((0.3, 0.01, 0.2))
    assert (passed_by.success_5cm, passed_by.success_2cm, passed_by.held_success_5cm) == (False, False, False)
    arrived_late = episode((0.3, 0.2, 0.01))
    assert (arrived_late.success_5cm, arrived_late.success_2cm, arrived_late.held_success_5cm) == (True, True, False)


def test_a_diverged_episode_is_a_failure_and_the_worst():
    broken = episode((0.3, 0.02, math.nan))
    assert not broken.success_5cm
    assert broken.final_distance_m == math.inf
    row = summarise([broken, episode(), episode()])
    assert (row["diverged"], row["success_5cm"], row["mean_final_distance_m"]) == (1, pytest.approx(2 / 3), None)
    assert row["median_final_distance_m"] == pytest.approx(0.01)


def test_a_summary_has_the_promised_numbers():
    row = summarise([episode(), episode((0.2, 0.06), lab="lab 1", lab_index=1), episode((0.04, 0.04))])
    assert (row["episodes"], row["labs"]) == (3, 2)
    assert row["success_5cm"] == pytest.approx(2 / 3)
    assert row["success_2cm"] == pytest.approx(1 / 3)
    assert row["solved_at_start"] == pytest.approx(1 / 3)
    assert row["median_final_distance_m"] == pytest.approx(0.04)
    assert row["iqr"] == pytest.approx([0.025, 0.05])
    assert row["min_distance_m"] == pytest.approx(0.04)
    assert row["normalised_progress"] == pytest.approx(0.7)
    assert row["wilson_95"] == pytest.approx(wilson(2, 3))
    assert (row["ms_per_step_p50"], row["ms_per_step_p95"]) == (15.0, 20.0)
    assert row["interval_95"][0] <= row["success_5cm"] <= row["interval_95"][1]


def test_nothing_cannot_be_summarised():
    with pytest.raises(ValueError, match="at least one record"):
        summarise([])
    with pytest.raises(ValueError, match="no distance"):
        episode(())


def test_a_report_sorts_methods_and_factors_and_pairs_episodes():
    report = make_report(protocol(), few_episodes())
    assert report.summary["success_5cm"] == 1.0
    assert set(report.baselines) == {"do nothing"}
    assert set(report.factors) == {"camera_azimuth"}
    assert report.comparisons["do nothing"]["pairs"] == 4
    assert report.comparisons["do nothing"]["difference"] == 1.0
    assert report.comparisons["do nothing"]["mcnemar_p"] == pytest.approx(2 / 2**4)


def test_a_report_without_its_headline_is_refused():
    with pytest.raises(ValueError, match="no episode of method 'other'"):
        make_report(protocol(method="other"), few_episodes())


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    report = make_report(protocol(), few_episodes())
    report.to_json(tmp_path / "report.json")
    assert Report.from_json(tmp_path / "report.json") == report


def test_numbers_that_are_not_finite_become_null_and_numpy_becomes_plain(tmp_path):
    odd = episode(
        np.array([0.3, np.nan]), lab_index=np.int64(0), imagined_m=(math.inf, 0.1), clipped_share=np.float32(0.5)
    )
    make_report(protocol(), [odd]).to_json(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["episodes"][0]["distances_m"] == [0.3, None]
    assert math.isnan(Report.from_json(tmp_path / "report.json").episodes[0].distances_m[1])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "reach-report-v1", "protocol": {}}']
)
def test_a_damaged_report_is_named(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match="report.json is not a readable report"):
        Report.from_json(tmp_path / "report.json")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    report = make_report(protocol(), few_episodes())
    report.to_json(tmp_path / "report.json")
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(TypeError):
        dataclasses.replace(report, factors={"x": {"y": object()}}).to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def tile(lab, distance, success):
    shade = np.full((16, 16, 3), 100, dtype=np.uint8)
    return Tile(lab=lab, final=shade, goal=shade, distance_m=distance, success=success, note="1/2")


def test_the_contact_sheet_holds_failures_first_in_red_and_successes_in_green():
    sheet = contact_sheet(
        [tile("a", 0.01, True), tile("b", math.nan, False), tile("c", 0.2, False)], columns=3, height=32
    )
    frame_row = sheet[8 + 22 + 1]
    starts = [8 + index * (2 * 32 + 2 + 6 + 8) for index in range(3)]
    assert [tuple(frame_row[start]) for start in starts] == [(213, 94, 0), (213, 94, 0), (0, 158, 115)]


def test_an_empty_contact_sheet_is_refused():
    with pytest.raises(ValueError, match="at least one tile"):
        contact_sheet([])


class Balanced(HTMLParser):
    """Collects tags and insists that each is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    records = [dataclasses.replace(record, lab=NASTY) if record.seed == 1 else record for record in few_episodes()]
    records.append(episode((0.3, math.nan), seed=9))
    write_folder(make_report(protocol(), records), where, tiles=[tile("a", 0.01, True)])
    return where


def test_a_run_folder_holds_report_figures_sheet_and_page(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    figures = {"distance_over_steps", "success_over_threshold", "distance_per_lab", "success_per_factor", "latency"}
    assert names == {"report.json", "report.html", "contact_sheet.png", *(f"figures/{name}.png" for name in figures)}


def test_figures_have_150_dots_per_inch_and_are_not_empty(folder):
    for path in (folder / "figures").iterdir():
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_the_page_is_well_formed_escapes_names_and_embeds_pictures(folder):
    text = (folder / "report.html").read_text()
    page = Balanced()
    page.feed(text)
    assert page.open == []
    assert page.seen.count("script") == 1
    assert "&lt;script&gt;" in text and "&lt;angle&gt; &amp; more" in text
    assert page.seen.count("img") == 6
    pictures = [source for source in page.sources if not source.endswith(".mp4")]
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert {source for source in page.sources if source.endswith(".mp4")} == {
        "videos/lab%200.mp4",
        "videos/lab%201.mp4",
    }


def test_curves_that_coincide_and_machines_that_were_busy_are_said(tmp_path):
    def drawn(plot, report):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        plot(axes, report)
        return figure, axes

    records = [*few_episodes(), *(dataclasses.replace(r, method="also still") for r in few_episodes()[1::3])]
    report = make_report(protocol(hardware="2 x abacus, machine was busy (load 9.0)"), records)
    figure, axes = drawn(figures.distance_over_steps, report)
    ends = {text.get_text() for text in axes.texts}
    assert ends == {"world model", "do nothing (same curve)", "also still (same curve)"}
    assert axes.get_legend() is None and len(figure.legends) == 1
    _, axes = drawn(figures.distance_per_lab, report)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lab 0", "lab 1"] and axes.get_ylim()[1] < 2
    _, axes = drawn(figures.latency, report)
    assert "machine was busy" in axes.get_title()
    assert "the machine was busy" in write_folder(report, tmp_path).read_text()


def test_the_page_lists_the_worst_episode_first(folder):
    text = (folder / "report.html").read_text()
    listed = text[text.index("Every episode, worst first") :]
    assert listed.index("diverged") < listed.index("1.0 cm")


def test_a_report_of_one_method_alone_makes_a_page(tmp_path):
    alone = [episode((0.3,), ms_per_step=())]
    page = write_folder(make_report(protocol(budget_steps=1), alone), tmp_path)
    assert "reached 0 of 1" in page.read_text()
