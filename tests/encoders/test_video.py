"""The video Transformer: grids, masks, levels, pictures, dtypes, memory, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.released import levels_of, vjepa2, vjepa2_1
from jepa_mpc.encoders.video import AllLevels, VideoSizes, VideoTransformer
from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator

SIZES = VideoSizes(width=24, depth=4, heads=2, mlp_dim=48, patch=8)
FORMS = {"2": vjepa2, "2.1": vjepa2_1}


def encoder(form: str = "2", *, sizes: VideoSizes = SIZES, **options) -> VideoTransformer:
    made = FORMS[form](sizes, **options)
    draw_weights(made, generator(0))
    with torch.no_grad():  # weights of a network that has learned: sharp attention, biases and norms that matter
        for index, weight in enumerate(made.parameters()):
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator(index, "vectors")))
            else:
                weight.mul_(10)
    return made.eval()


def clips(batch: int = 2, frames: int = 4, height: int = 16, width: int = 24, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=generator(seed))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("frames", "height", "width"), [(2, 8, 8), (4, 16, 24), (6, 40, 8)])
def test_any_length_and_shape_of_picture_becomes_its_grid_of_tokens(form, frames, height, width):
    made = encoder(form)
    tokens = made(clips(2, frames, height, width))
    times, rows, columns = made.grid(frames, height, width)
    assert tokens.shape == (2, times * rows * columns, 24) and tokens.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_patches_are_the_strided_convolution(form):
    made, x = encoder(form), clips()
    patches = made.patches
    wanted = torch.nn.functional.conv3d(x.transpose(1, 2), patches.weight, patches.bias, stride=(2, 8, 8))
    torch.testing.assert_close(patches(x).permute(0, 4, 1, 2, 3), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_hidden_tokens_do_not_reach_the_kept_ones(form):
    made, x, keep = encoder(form), clips(), torch.tensor([[0, 5, 11], [3, 1, 7]])
    before, other = made(x, keep), x.clone()
    other[0, 2:, :, :8, :8] += 1  # token 6 of the first sample, which is not kept
    torch.testing.assert_close(made(other, keep), before)
    assert not torch.allclose(made(other), made(x), atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_keeping_all_tokens_changes_nothing_and_their_order_is_free(form):
    made, x = encoder(form), clips()
    order = torch.randperm(12, generator=generator(0)).expand(2, -1)
    torch.testing.assert_close(made(x, order), made(x)[:, order[0]], atol=1e-5, rtol=1e-5)


def corner(height: int, width: int) -> torch.Tensor:
    """Grey with one other patch at the top left."""
    x = torch.ones(1, 2, 3, height, width)
    x[..., :8, :8] = -1
    return x


def test_kept_tokens_know_their_place():
    made, x = encoder("2"), corner(32, 32)
    near, far = (made(x, torch.tensor([[0, other]])) for other in (1, 15))
    assert (near - far).abs().max() > 1e-2


def test_stretched_places_are_blind_to_resolution_and_counted_ones_are_not():
    small, large = corner(16, 16), corner(24, 24)
    first_and_last = torch.tensor([[0, 3]]), torch.tensor([[0, 8]])
    seen = {
        form: [encoder(form)(x, keep) for x, keep in zip((small, large), first_and_last, strict=True)] for form in FORMS
    }
    torch.testing.assert_close(*seen["2.1"], atol=1e-4, rtol=1e-4)
    assert (seen["2"][0] - seen["2"][1]).abs().max() > 1e-2


def test_the_two_forms_turn_channels_differently():
    sizes = VideoSizes(width=24, depth=1, heads=1, mlp_dim=48, patch=8)
    tiled, x = encoder("2", sizes=sizes), clips()
    other = VideoTransformer(sizes, pairing="interleaved").eval()
    other.load_state_dict(tiled.state_dict())
    assert (tiled(x) - other(x)).abs().max() > 1e-2


def test_without_pictures_of_its_own_a_picture_is_repeated_to_fill_a_tubelet():
    made, picture = encoder("2"), clips()[:, 0]
    torch.testing.assert_close(made(picture), made(picture[:, None].repeat(1, 2, 1, 1, 1)))


def test_a_picture_takes_its_own_path_with_or_without_an_axis_of_time():
    made, picture = encoder("2.1"), clips()[:, 0]
    assert torch.equal(made(picture), made(picture[:, None]))
    assert not torch.allclose(made(picture), made(picture[:, None].repeat(1, 2, 1, 1, 1)), atol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_the_last_depth_is_the_output(form):
    made, x = encoder(form), clips()
    assert torch.equal(made.depths(x, at=[3])[0], made(x))
    first, last = made.depths(x, at=[1, 3])
    assert torch.equal(last, made(x)) and not torch.allclose(first, last, atol=1e-2)


def test_joined_levels_stand_in_rising_depth():
    made, x, keep = encoder("2.1"), clips(), torch.tensor([[0, 5], [3, 1]])
    joined = AllLevels(made)
    assert joined.width == 96
    torch.testing.assert_close(joined(x, keep), torch.cat(made.depths(x, keep, at=(0, 1, 2, 3)), dim=-1))
    assert torch.equal(AllLevels(made, last=1)(x), made(x))


def test_levels_of_released_depths_are_those_of_the_authors():
    assert levels_of(12) == (2, 5, 8, 11)
    assert levels_of(24) == (5, 11, 17, 23)
    assert levels_of(40) == (9, 19, 29, 39)
    assert levels_of(48) == (11, 23, 37, 47)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_decide_the_dtype_and_half_precision_stays_near(form, dtype):
    made, x = encoder(form), clips()
    wanted = made(x)
    tokens = made.to(dtype)(x)
    assert tokens.dtype == dtype
    torch.testing.assert_close(tokens.float(), wanted, atol=0.1, rtol=0.1)  # eight bits of mantissa, four blocks


@pytest.mark.parametrize("form", FORMS)
def test_autocast_stays_near_float32(form):
    made, x = encoder(form), clips()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = made(x)
    torch.testing.assert_close(tokens.float(), made(x), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_recomputed_activations_give_the_same_gradients(form):
    gradients = []
    for recompute in (False, True):
        made = encoder(form, recompute=recompute).train()
        made(clips()).square().mean().backward()
        gradients.append({name: w.grad for name, w in made.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_gradient_reaches_every_weight_of_both_paths():
    made = AllLevels(encoder("2.1").train())
    clip, picture = clips(), clips()[:, 0]
    weights = torch.randn(96, generator=generator(3))
    ((made(clip) * weights).square().mean() + (made(picture) * weights).square().mean()).backward()
    assert not [name for name, weight in made.named_parameters() if not weight.grad.abs().sum() > 0]


@pytest.mark.parametrize("options", [{"pairing": "tiled"}, {"pictures": True, "levels": (0,), "span": 16}])
def test_the_whole_network_is_one_graph(options):
    made, keep = VideoTransformer(dataclasses.replace(SIZES, depth=1), **options).eval(), torch.tensor([[0, 5], [3, 1]])
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    for x, kept in ((clips(), keep), (clips()[:, 0], None)):
        torch.testing.assert_close(compiled(x, kept), made(x, kept))


def test_the_same_seed_draws_the_same_weights_and_deeper_branches_are_smaller():
    first, second = (draw_weights(vjepa2_1(SIZES), generator(4)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    shallow, deep = (first[f"blocks.{index}.mlp.down.weight"].std() for index in (0, 3))
    torch.testing.assert_close(shallow / deep, torch.tensor(2.0), atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 4, 1, 16, 24), r"\(B, T, 3, h, w\).*got \(2, 4, 1, 16, 24\)"),
        (torch.zeros(2, 3, 4, 16, 24), r"transpose\(1, 2\)"),
        (torch.zeros(2, 4, 3, 16, 24, dtype=torch.uint8), "normalised clips.*uint8"),
        (torch.zeros(4, 16, 24), "images"),
        (torch.zeros(2, 3, 3, 16, 24), "multiple of 2 frames, got 3"),
        (torch.zeros(2, 0, 3, 16, 24), "multiple of 2 frames, got 0"),
        (torch.zeros(2, 4, 3, 16, 20), "sides divisible by 8, got 16 x 20 pixels"),
        (torch.zeros(2, 3, 17, 24), "sides divisible by 8, got 17 x 24 pixels"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_clips_that_do_not_fit_are_refused_in_words(form, x, message):
    with pytest.raises(BadObservation, match=message):
        encoder(form)(x)


def test_a_clip_of_one_frame_is_refused_where_there_is_no_path_for_pictures():
    with pytest.raises(BadObservation, match="multiple of 2 frames, got 1"):
        encoder("2")(clips(frames=1))


@pytest.mark.parametrize(
    "keep", [torch.zeros(3, 2, dtype=torch.long), torch.zeros(2, dtype=torch.long), torch.zeros(2, 2)]
)
def test_masks_of_another_batch_or_dtype_are_refused(keep):
    with pytest.raises(BadObservation, match=r"\(B, K\) of int64 with B = 2"):
        encoder()(clips(), keep)


def test_depths_and_levels_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="after block 7: choose among 0 to 3"):
        encoder("2").depths(clips(), at=[7])
    with pytest.raises(ValueError, match=r"after block 0: choose among \(1, 3\)"):
        VideoTransformer(SIZES, levels=(1, 3)).depths(clips(), at=[0])
    with pytest.raises(ValueError, match="last level must be the last block 3"):
        VideoTransformer(SIZES, levels=(0, 2))
    with pytest.raises(ValueError, match="ascending"):
        VideoTransformer(SIZES, levels=(3, 1))
    with pytest.raises(ValueError, match="the encoder has 0"):
        AllLevels(encoder("2"))
    with pytest.raises(ValueError, match="a depth divisible by 4"):
        levels_of(6)
