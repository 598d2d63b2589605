"""One decision of the calibrated agent: every camera frame is drawn, moved to the device and encoded once."""

from __future__ import annotations

from collections import Counter

import pytest

import jepa_mpc
from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.types import Observation

STEPS = 3


def counted(monkeypatch, counter, owner, name, size=lambda *arguments: 1):
    true = getattr(owner, name)

    def counting(*arguments, **settings):
        counter[name] += size(*arguments)
        return true(*arguments, **settings)

    monkeypatch.setattr(owner, name, counting)


@pytest.mark.render
def test_each_frame_is_drawn_moved_and_encoded_once(monkeypatch):
    counter: Counter[str] = Counter()
    env = jepa_mpc.make_env("reach-v1", image_size=128)
    agent = jepa_mpc.load_agent(env)
    env.reset(seed=0)
    encoder = agent.agent.perception.perception.encoder
    hook = encoder.register_forward_hook(lambda network, given, made: counter.update(encoded=len(given[0])))
    counted(monkeypatch, counter, env._renderer, "draw")
    counted(monkeypatch, counter, env, "observation")
    counted(monkeypatch, counter, Observation, "to")
    counted(monkeypatch, counter, HandPoints, "find", size=lambda points, pictures, beside: len(pictures))
    jepa_mpc.run_episode(env, agent, steps=STEPS)
    hook.remove()
    env.close()
    assert counter["draw"] == STEPS * len(env.cameras)
    assert counter["observation"] == STEPS
    assert counter["to"] == counter["encoded"] == STEPS + 1  # and the goal image, once per episode
    assert counter["find"] == 2 * STEPS  # keypoints: the present and the goal image, each given the other
