"""The displacement head: exact on a world that lies straight, blind to where a window begins."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.position_head import HindsightDisplacement, MeasuredPosition, TokenPlaces

WIDTH = 12


def walk(worlds: int = 5, steps: int = 6, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Actions `B T-1 7` (their axes beyond the third are noise) and the places `B T 3` that they lead to, float64."""
    draw = generator(seed, "walk")
    actions = 0.05 * torch.randn(worlds, steps, 7, generator=draw, dtype=torch.float64)
    begin = torch.randn(worlds, 1, 3, generator=draw, dtype=torch.float64)
    return actions, torch.cat([begin, begin + actions[..., :3].cumsum(1)], dim=1)


def straight(places: torch.Tensor, head: HindsightDisplacement) -> torch.Tensor:
    """Latents `B T 1 D` in which the head reads the places exactly."""
    return (places / head.unit_m) @ torch.linalg.pinv(head.linear.weight.detach()).T[..., None, :, :]


@pytest.fixture
def head() -> HindsightDisplacement:
    made = HindsightDisplacement(WIDTH).double()
    with torch.no_grad():
        made.linear.weight.normal_(generator=generator(3))
    return made


def test_latents_that_are_linear_in_place_cost_nothing(head):
    actions, places = walk()
    latents = straight(places, head).reshape(5, 7, 1, WIDTH)
    assert head(latents, actions, generator(0)) < 1e-24


def test_a_constant_per_window_changes_nothing(head):
    actions, _ = walk()
    latents = torch.randn(5, 7, 2, WIDTH // 2, generator=generator(1), dtype=torch.float64)
    shift = torch.randn(5, 1, 2, WIDTH // 2, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(head(latents, actions, generator(0)), head(latents + shift, actions, generator(0)))


def test_only_displacement_axes_count(head):
    actions, _ = walk()
    latents = torch.randn(5, 7, 1, WIDTH, generator=generator(1), dtype=torch.float64)
    turned = torch.cat([actions[..., :3], 9 * actions[..., 3:]], dim=-1)
    assert torch.equal(head(latents, actions, generator(0)), head(latents, turned, generator(0)))


def test_action_t_leads_from_frame_t_to_the_next(head):
    """Moving one action moves all later frames alike, so that the loss of exact latents rises; order matters."""
    actions, places = walk()
    latents = straight(places, head).reshape(5, 7, 1, WIDTH)
    assert head(latents, actions.flip(1), generator(0)) > 1e-4


def test_metres_recover_true_distances(head):
    _, places = walk()
    latents = straight(places, head).reshape(5, 7, 1, WIDTH)
    read = head.metres(latents)
    assert read.shape == (5, 7, 3)
    torch.testing.assert_close((read[:, 1:] - read[:, :1]).norm(dim=-1), (places[:, 1:] - places[:, :1]).norm(dim=-1))


def test_metres_are_linear_along_a_straight_line_of_latents(head):
    begin, end = torch.randn(2, 1, WIDTH, generator=generator(1), dtype=torch.float64)
    half = (head.metres(begin) + head.metres(end)) / 2
    torch.testing.assert_close(head.metres((begin + end) / 2), half)


def test_the_loss_counts_squares_of_the_unit():
    """A head that reads nothing pays the spread of the walk itself, in units of 10 cm."""
    head = HindsightDisplacement(2)
    torch.nn.init.zeros_(head.linear.weight)
    actions = torch.tensor([[[0.2, 0.0, 0.0]]])
    assert head(torch.randn(1, 2, 1, 2), actions, generator(0)).item() == pytest.approx(1.0)


def test_gradients_agree_with_finite_differences(head):
    actions, _ = walk(worlds=2, steps=3)
    latents = torch.randn(2, 4, 1, WIDTH, generator=generator(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: head(z, actions, generator(0)), (latents,))


def test_token_places_follow_a_bright_token_across_the_grid():
    """With one token apart from the rest, what is found moves with it, row by row and column by column."""
    look = draw_weights(TokenPlaces(8, rows=4, columns=4, features=4, seen=2, output=6), generator(0))
    with torch.no_grad():
        look.score[2].weight.mul_(20.0)
    tokens = torch.zeros(16, 16, 8)
    tokens[torch.arange(16), torch.arange(16)] = 3.0
    found = look(tokens)
    assert found.shape == (16, 6)
    assert torch.pdist(found).min() > 1e-4


def test_a_head_that_looks_at_tokens_learns_displacements():
    places = generator(1)
    head = HindsightDisplacement(6, look=TokenPlaces(4, rows=3, columns=3, features=2, seen=2, output=6))
    draw_weights(head, places)
    latents, actions = torch.randn(8, 4, 9, 4, generator=places), torch.randn(8, 3, 7, generator=places)
    loss = head(latents, actions, places)
    loss.backward()
    assert head.metres(latents).shape == (8, 4, 3)
    assert all(weight.grad.abs().sum() > 0 for weight in head.parameters())


def test_a_measured_position_is_read_from_seen_and_predicted_latents():
    head = MeasuredPosition(WIDTH, entries=[2, 0], unit_m=0.5).double()
    latents = torch.randn(5, 7, 1, WIDTH, generator=generator(1), dtype=torch.float64)
    places = head.metres(latents).detach()
    batch = {"proprio": torch.stack([places[..., 1], torch.zeros(5, 7), places[..., 0]], dim=-1)}
    assert head(latents, batch) < 1e-24 and head(latents[:, 2:4], batch, first=2) < 1e-24
    assert head(latents[:, 1:], batch) > 1e-3
    for entries, match in (([], "entries must name the numbers"), ([3], "some of the 3 numbers")):
        with pytest.raises(ValueError, match=match):
            MeasuredPosition(WIDTH, entries=entries).double()(latents, batch)
