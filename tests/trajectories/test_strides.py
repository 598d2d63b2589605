"""Windows that skip steps of the log: their actions add up, and they stay in their episode."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank, load_bank
from jepa_mpc.trajectories.synthetic import synthetic_log

PLACE = slice(8, 11)  # of the proprioception: the hand's position (m)
LENGTH = 3
WIDEST = 4


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> FrameBank:
    return load_bank(synthetic_log(tmp_path_factory.mktemp("log"), episodes=6, length=14))


def draw(bank: FrameBank, *, count: int = 600, seed: int = 0, widest: int = WIDEST) -> dict[str, torch.Tensor]:
    return bank.sample(count, LENGTH, generator=generator(seed), max_stride=widest)


def steps_of(bank: FrameBank, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The step of the bank that each observation `B T` was taken from."""
    rows = batch["proprio"].flatten(0, 1)
    return torch.cdist(rows, bank.proprio.clone()).argmin(dim=1).unflatten(0, batch["proprio"].shape[:2])


def test_actions_are_what_lies_between_two_places(bank):
    batch = draw(bank)
    moved = batch["proprio"][:, 1:, PLACE] - batch["proprio"][:, :-1, PLACE]
    torch.testing.assert_close(batch["actions"][..., :3], moved, atol=1e-5, rtol=0)


def test_no_window_crosses_an_episode(bank):
    batch = draw(bank)
    steps = steps_of(bank, batch)
    first, end = bank.offsets[batch["episode"]][:, None], bank.offsets[batch["episode"] + 1][:, None]
    assert (steps >= first).all() and (steps < end).all()


def test_one_stride_holds_for_a_whole_window_and_none_is_too_wide(bank):
    strides = steps_of(bank, draw(bank)).diff(dim=1)
    assert (strides == strides[:, :1]).all()
    assert set(strides.flatten().tolist()) == set(range(1, WIDEST + 1))


def test_half_of_the_windows_and_a_share_of_the_others_skip_nothing(bank):
    """Expected 1/2 + 1/2 * 1/4 = 0.625; 600 draws have a spread of 0.02."""
    strides = steps_of(bank, draw(bank)).diff(dim=1)[:, 0]
    assert (strides == 1).float().mean() == pytest.approx(0.625, abs=0.08)


def test_a_widest_stride_of_one_gives_every_step_in_a_row(bank):
    batch = draw(bank, widest=1)
    steps = steps_of(bank, batch)
    assert (steps.diff(dim=1) == 1).all()
    torch.testing.assert_close(batch["actions"], bank.actions[steps[:, :-1]], atol=1e-6, rtol=0)
    assert torch.equal(batch["frames"], bank.frames[steps])


def test_frames_come_from_the_same_steps_as_the_places(bank):
    batch = draw(bank, count=50)
    assert torch.equal(batch["frames"], bank.frames[steps_of(bank, batch)])


def test_every_start_that_fits_is_drawn(bank):
    """At the widest stride too: the last window of an episode ends at its last step."""
    batch = draw(bank, count=6000)
    steps = steps_of(bank, batch)
    wide = steps.diff(dim=1)[:, 0] == WIDEST
    lengths = bank.offsets.diff()
    fitting = (lengths - (LENGTH - 1) * WIDEST).clamp_min(0).sum()
    assert len(steps[wide][:, 0].unique()) == fitting


def test_the_same_generator_draws_the_same_windows(bank):
    first, second = (draw(bank, seed=3) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_windows_at_given_steps_take_the_strides_they_are_told(bank):
    starts, strides = torch.tensor([0, 2]), torch.tensor([1, 3])
    batch = bank.windows_at(starts, LENGTH, strides=strides)
    assert steps_of(bank, batch).tolist() == [[0, 1, 2], [2, 5, 8]]


def test_a_stride_for_which_no_episode_is_long_enough_is_refused(bank):
    with pytest.raises(ValueError, match="no episode has the"):
        draw(bank, widest=20)


def test_a_bank_on_chosen_episodes_draws_from_these_alone(bank):
    train, held = bank.split(0.34, generator=generator(0))
    for side in (train, held):
        assert set(draw(side)["episode"].tolist()) == set(side.episodes.tolist())
