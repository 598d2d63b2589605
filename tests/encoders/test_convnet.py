"""The keypoint encoder: shapes, one trunk for all cameras, blindness to exposure, points that follow what moves."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.convnet import KeypointEncoder, SoftArgMax
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator


def encoder(**sizes) -> KeypointEncoder:
    made = KeypointEncoder(**{"width": 10, "widths": (8, 8, 16, 16), "keypoints": 4, "hidden": 16} | sizes)
    draw_weights(made, generator(0))
    return made.eval()


def pictures(batch: int = 3, *, cameras: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(batch, 3 * cameras, size, size, generator=generator(1))


@pytest.mark.parametrize("cameras", [1, 2, 3])
@pytest.mark.parametrize("size", [16, 31, 48])
def test_any_number_of_cameras_and_any_size_become_one_token(cameras, size):
    latents = encoder(num_cameras=cameras)(pictures(cameras=cameras, size=size))
    assert latents.shape == (3, 1, 10) and latents.isfinite().all()


def test_all_cameras_share_one_trunk():
    one, two = (sum(w.numel() for w in encoder(num_cameras=n).trunk.parameters()) for n in (1, 2))
    assert one == two
    made = encoder(num_cameras=2)
    first, second = pictures().split(3, dim=1)
    torch.testing.assert_close(made.trunk(torch.cat([first, second]))[3:], made.trunk(second))


def test_the_order_of_the_cameras_matters():
    made, seen = encoder(), pictures()
    assert not torch.allclose(made(seen), made(seen.roll(3, dims=1)), atol=1e-3)


def test_gain_and_offset_of_each_channel_hardly_matter():
    made, seen = encoder(), pictures()
    gain = torch.linspace(0.6, 1.8, 6)[:, None, None]
    offset = torch.linspace(-0.3, 0.4, 6)[:, None, None]
    torch.testing.assert_close(made(gain * seen + offset), made(seen), atol=1e-2, rtol=0)


def test_a_black_picture_gives_finite_latents_and_gradients():
    made = encoder()
    black = torch.zeros(2, 6, 32, 32, requires_grad=True)
    made(black).square().sum().backward()
    assert made(black).isfinite().all()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in made.parameters())


def test_rows_of_a_batch_do_not_influence_each_other():
    made, seen = encoder(), pictures()
    other = torch.cat([seen[:1], pictures()[1:].flip(0)])
    torch.testing.assert_close(made(seen)[0], made(other)[0])


def test_points_stand_where_the_heat_is():
    heat = torch.full((1, 3, 9, 9), -30.0)
    for point, (row, column) in enumerate([(0, 0), (4, 4), (8, 6)]):
        heat[0, point, row, column] = 30.0
    wanted = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.5, 1.0]])
    torch.testing.assert_close(SoftArgMax()(heat)[0], wanted)


def test_even_heat_is_in_the_middle():
    torch.testing.assert_close(SoftArgMax()(torch.zeros(1, 1, 5, 8)), torch.zeros(1, 1, 2))


def test_gradient_reaches_every_weight():
    made = encoder().train()
    made(pictures()).square().sum().backward()
    assert not [name for name, weight in made.named_parameters() if not weight.grad.abs().sum() > 0]


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 8, 32, 32), (6, 32, 32), (2, 1, 6, 32, 32)])
def test_pictures_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"expected images \(B, 6, h, w\), got"):
        encoder()(torch.zeros(shape))


def test_there_is_nothing_to_keep():
    with pytest.raises(ValueError, match="single token"):
        encoder()(pictures(), keep=torch.zeros(3, 1, dtype=torch.long))
