"""headroom.py: a table from a few episodes, resumed where it was stopped, and mistakes that are told at once."""

from __future__ import annotations

import json

from jepa_mpc.experiments.evaluation.handling.headroom_table import leads, markdown, summary
from tests.commands import command


def headroom(folder, *overrides):
    return command("headroom", f"out={folder}", *overrides, cwd=folder.parent)


def made_up(agent: str, places: list[bool]):
    return [
        {"cell": {"episode": number}, "agent": agent, "place": place, "error": "", "cpu_s": 1.0}
        for number, place in enumerate(places)
    ]


def test_a_run_leaves_a_table_and_goes_on_where_it_was_stopped(tmp_path):
    options = ["tasks=[final]", "agents=[servo,true dynamics]", "num_samples=8", "num_iterations=1", "horizon=1"]
    first = headroom(tmp_path / "run", *options, "episodes=1")
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "run/headroom.json").read_text())
    assert set(found["tasks"]["final"]) == {"servo", "true dynamics"}
    assert {"grasp", "reach", "place", "wilson_95", "grip"} <= set(found["tasks"]["final"]["servo"])
    played = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/episodes").iterdir()}
    second = headroom(tmp_path / "run", *options, "episodes=1")
    assert second.returncode == 0 and {path: path.stat().st_mtime_ns for path in played} == played
    assert (tmp_path / "run/table.md").read_text() in second.stdout


def test_an_unknown_task_or_agent_is_told(tmp_path):
    for option, word in (("tasks=[pull]", "pull"), ("agents=[nobody]", "nobody"), ("object=ball", "ball")):
        result = headroom(tmp_path / "run", option)
        assert result.returncode == 1 and word in result.stderr and "Traceback" not in result.stderr


def test_leads_are_counted_on_the_episodes_that_both_have_played():
    outcomes = {
        ("final", "true dynamics"): made_up("true dynamics", [True, True, True, False]),
        ("final", "servo"): made_up("servo", [False, True]),
    }
    (row,) = leads(outcomes)
    assert (row["over"], row["episodes"], row["points"]) == ("servo", 2, 50.0)
    text = markdown(summary(outcomes), leads(outcomes))
    assert "| final | true dynamics | 4 | – | – | 75 % |" in text and "| final | servo | 2 | +50 |" in text
