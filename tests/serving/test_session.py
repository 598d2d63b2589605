"""One episode: goals, starts, late observations and deadlines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jepa_mpc.errors import BadObservation
from tests.serving.running import KEYS, Mirror, picture, request, session

NO_GOAL = {"observation/image": picture()}


def counted(answer) -> int:
    return int(answer["actions"][0, 2])


def test_an_answer_is_one_row_of_float32():
    answer = session().answer(request(5))
    assert answer["actions"].dtype == np.float32 and answer["actions"].tolist() == [[5.0, 9.0, 1.0]]


def test_without_a_goal_nothing_is_planned():
    with pytest.raises(BadObservation, match="there is no goal: send goal/image"):
        session().answer(NO_GOAL)


def test_the_servers_goal_holds_until_a_request_brings_another():
    mine = session()
    mine.answer(request(goal=40))
    episode = session(goal=mine.goal)
    assert episode.answer(NO_GOAL)["actions"][0, 1] == 40
    answer = episode.answer(request(goal=80))
    assert answer["actions"][0, 1] == 80 and counted(answer) == 2  # the memory stays
    assert episode.answer(NO_GOAL)["actions"][0, 1] == 80


def test_an_episode_begins_when_it_is_told_to():
    episode = session()
    assert [counted(episode.answer(request())) for _ in range(3)] == [1, 2, 3]
    assert counted(episode.answer(request(**{"episode/start": True}))) == 1
    assert counted(episode.answer(NO_GOAL)) == 2


def test_time_must_rise_within_an_episode():
    episode = session()
    for taken_s in (1.0, 1.1):
        episode.admit({"observation/time_s": taken_s}, now_s=100 + taken_s)
    for taken_s in (1.1, 0.5):
        with pytest.raises(BadObservation, match="stale observation"):
            episode.admit({"observation/time_s": taken_s}, now_s=101.2)
    episode.admit({"observation/time_s": 0.2, "episode/start": True}, now_s=101.3)


def test_an_observation_that_was_long_under_way_is_stale_whatever_the_clocks_say():
    episode = session(max_age_s=0.5)
    for taken_s, now_s in ((1000.0, 5.30), (1000.2, 5.45), (1000.4, 5.80)):  # 0.15 s late at most
        episode.admit({"observation/time_s": taken_s}, now_s=now_s)
    with pytest.raises(BadObservation, match="came 750 ms late, at most 500 ms"):
        episode.admit({"observation/time_s": 1000.6}, now_s=6.6)
    episode.admit({}, now_s=99.0)  # without a time nothing can be said


def test_the_shorter_deadline_counts_and_waiting_is_part_of_it():
    agent = Mirror()
    episode = session(agent, deadline_s=0.5)
    episode.answer(request())
    episode.answer(request(**{"plan/deadline_ms": 200}), waited_s=0.05)
    episode.answer(request(**{"plan/deadline_ms": np.float32(900)}))
    episode.answer(request(**{"plan/deadline_ms": 20}), waited_s=3.0)
    assert agent.limits == pytest.approx([0.5, 0.15, 0.5, 0.001])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"observation/image": None}, "lacks the image observation/image"),
        ({"observation/image": picture().astype(np.float32)}, r"must be uint8 \(h, w, 3\), got float32"),
        ({"observation/image": picture()[..., :1]}, r"got uint8 \(8, 8, 1\)"),
        ({"observation/image": picture(size=0)}, r"got uint8 \(0, 0, 3\)"),
        ({"goal/image": "goal.png"}, "lacks the image goal/image"),
        ({"plan/deadline_ms": -1}, "plan/deadline_ms must be a finite number from 0, got -1"),
        ({"plan/deadline_ms": math.nan}, "plan/deadline_ms must be a finite number"),
        ({"plan/deadline_ms": "soon"}, "plan/deadline_ms must be a finite number"),
    ],
)
def test_a_wrong_entry_is_told_in_one_sentence(entries, words):
    with pytest.raises(BadObservation, match=words):
        session().answer({**request(), **entries})


def test_the_state_is_put_together_in_order():
    from jepa_mpc.serving.session import Keys, Session

    seen = []

    class Feels(Mirror):
        def act(self, observation):
            seen.append(observation.proprio)
            return super().act(observation)

    keys = Keys(cameras=KEYS.cameras, images=KEYS.images, goals=KEYS.goals, state=("a", "b"))
    episode = Session(Feels(), keys, fit=lambda pictures: pictures)
    episode.answer({**request(), "a": np.arange(3.0), "b": np.ones(1, np.float32)})
    assert seen[0].shape == (1, 1, 4) and seen[0][0, 0].tolist() == [0, 1, 2, 1]
    for wrong in (None, np.zeros((2, 2)), np.array(["x"]), np.array([np.nan])):
        with pytest.raises(BadObservation, match="a"):
            episode.answer({**request(), "a": wrong, "b": np.ones(1)})


def test_there_must_be_an_entry_for_each_camera():
    from jepa_mpc.serving.session import Keys

    with pytest.raises(ValueError, match="for each of the cameras left, right"):
        Keys(cameras=("left", "right"), images=("a", "b"), goals=("c",))
