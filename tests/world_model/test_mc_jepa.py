"""MC-JEPA: flow operations, pyramid, coarse-to-fine flow, the joint loss; and the factored masks."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.pyramid import PyramidEncoder, PyramidSizes
from jepa_mpc.errors import BadObservation, UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.crops import RandomCrop
from jepa_mpc.world_model.parts.flow import (
    consistent,
    correlation,
    dissimilarity,
    end_point_error,
    in_view,
    masked_mean,
    resize_flow,
    roughness,
    round_trip,
    warp,
)
from jepa_mpc.world_model.parts.masks.factored import MomentMask, PlaceMask
from jepa_mpc.world_model.parts.objectives.motion_terms import MotionWeights, visible
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from jepa_mpc.world_model.recipes import mc_jepa
from jepa_mpc.world_model.recipes.variants import mc_jepa_factored
from tests.rounding import rounding

SIZES = PyramidSizes(widths=(8, 8, 16), depths=(0, 1, 1), steps=(2, 2, 2), kernel=3, expansion=2)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "noise"))


def smooth_pictures(count=2, size=32, *, seed=0):
    """Coloured clouds on the scale 0 to 255."""
    coarse = noise(count, 3, size // 4, size // 4, seed=seed)
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (127 + 60 * fine).clamp(0, 255)


def shifted(pictures, dx, dy):
    """What a camera sees after everything moved by whole pixels."""
    return pictures.roll((dy, dx), dims=(-2, -1))


def constant(dx, dy, like):
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(len(like), 2, *like.shape[-2:]).float()


def tiny(**changes):
    return mc_jepa.build(preset="tiny", generator=generator(0), **changes)


def test_warping_takes_pixels_from_where_the_flow_leads():
    first = smooth_pictures()
    second = shifted(first, 3, -2)
    flow = constant(3, -2, first)
    inner = in_view(flow).bool().expand_as(first)
    assert torch.allclose(warp(second, flow)[inner], first[inner], atol=1e-3)


def test_a_pixel_is_in_view_up_to_the_last_row_and_column():
    flow = torch.zeros(1, 2, 4, 5)
    flow[0, 0, 0] = torch.tensor([-0.1, 3.0, 2.0, 1.1, 0.0])
    assert in_view(flow)[0, 0, 0].tolist() == [0, 1, 1, 0, 1]


def test_a_flow_and_its_inverse_are_consistent_and_two_alike_are_not():
    flow = constant(4, 0, torch.zeros(1, 1, 16, 16))
    assert round_trip(flow, -flow).max() < 1e-9
    assert consistent(flow, -flow).all() and not consistent(flow, flow).any()


def test_equal_pictures_are_not_dissimilar_and_negatives_are():
    picture = smooth_pictures() / 255
    assert dissimilarity(picture, picture).max() < 1e-5
    assert dissimilarity(picture, 1 - picture).mean() > 0.4


def test_a_step_of_the_flow_costs_less_at_an_edge_of_the_picture():
    flow = torch.zeros(1, 2, 8, 8)
    flow[..., 4:] = 1
    plain = torch.zeros(1, 3, 8, 8)
    edged = (flow[:, :1] * torch.ones(1, 3, 1, 1)).clone()
    assert roughness(flow, edged) < 0.01 * roughness(flow, plain)
    assert roughness(torch.ones(1, 2, 8, 8), plain) == 0


def test_correlation_is_highest_at_the_true_shift():
    first = noise(1, 64, 9, 9)
    second = first.roll((1, -2), dims=(-2, -1))  # down by 1, left by 2
    best = correlation(first, second, radius=2)[0, :, 4, 4].argmax()
    assert divmod(int(best), 5) == (1 + 2, -2 + 2)


def test_a_resized_flow_counts_in_the_new_pixels():
    flow = constant(1.0, 2.0, torch.zeros(1, 1, 4, 6))
    large = resize_flow(flow, (12, 12))
    assert torch.allclose(large[0, 0], torch.tensor(2.0)) and torch.allclose(large[0, 1], torch.tensor(6.0))


def test_a_mask_decides_which_pixels_are_judged():
    flow, truth = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    truth[..., 0, 0] = torch.tensor([3.0, 4.0])
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1
    assert end_point_error(flow, truth, mask) == 5 and end_point_error(flow, truth) == 5 / 16
    assert masked_mean(truth, torch.zeros_like(mask)) == 0


def test_the_gradient_of_warping_is_that_of_finite_differences():
    second = noise(1, 2, 6, 6).double()
    flow = (0.3 + 0.1 * noise(1, 2, 6, 6)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: warp(second, f).sum(), (flow,), atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (40, 24)])
def test_each_level_is_half_as_fine_as_the_one_before(size):
    levels = PyramidEncoder(SIZES).levels(noise(2, 3, *size))
    assert [tuple(level.shape) for level in levels] == [
        (2, width, size[0] // stride, size[1] // stride)
        for width, stride in zip(SIZES.widths, SIZES.strides, strict=True)
    ]


def test_tokens_are_the_cells_of_one_level_camera_by_camera():
    encoder = PyramidEncoder(SIZES, level=1, num_cameras=2)
    pictures = noise(3, 6, 32, 32)
    tokens = encoder(pictures)
    right = encoder.levels(pictures[:, 3:])[1].flatten(2).transpose(1, 2)
    assert tokens.shape == (3, 2 * 64, 8) and encoder.width == 8
    assert torch.allclose(tokens[:, 64:], right, **rounding(products=6, terms=72))
    keep = torch.tensor([[5, 70]] * 3)
    assert torch.equal(encoder(pictures, keep), tokens[:, [5, 70]])


def test_a_pyramid_refuses_what_it_cannot_take():
    with pytest.raises(BadObservation, match="expected images"):
        PyramidEncoder(SIZES)(noise(1, 6, 32, 32))
    with pytest.raises(BadObservation, match="at least 8 x 8"):
        PyramidEncoder(SIZES)(noise(1, 3, 4, 4))
    with pytest.raises(ValueError, match="one entry per level"):
        PyramidSizes(widths=(8,), depths=(1, 1), steps=(2,))
    with pytest.raises(ValueError, match="a level among 3"):
        PyramidEncoder(SIZES, level=3)


def test_the_paper_has_six_levels_each_half_as_fine():
    sizes = mc_jepa.PRESETS["paper"].encoder
    assert sizes.strides == (1, 2, 4, 8, 16, 32) and sizes.widths[-1] == 768


def test_flow_has_the_size_of_the_frames_and_takes_bytes():
    frames = smooth_pictures(2, 28).to(torch.uint8)
    flow = tiny().flow(frames, frames)
    assert flow.shape == (2, 2, 28, 28) and flow.isfinite().all()
    with pytest.raises(BadObservation, match="cut several cameras apart"):
        tiny().flow(frames.repeat(1, 2, 1, 1), frames.repeat(1, 2, 1, 1))


def test_flow_is_bounded_however_wrong_the_weights():
    objective = tiny()
    with torch.no_grad():
        for estimator in objective.head.estimators:
            estimator.last.bias.fill_(1e4)
    frames = smooth_pictures(1, 32)
    flows = objective.head(objective.encoder.levels(frames), objective.encoder.levels(frames))
    assert max(float(flow.detach().abs().max()) for flow in flows) <= 128


def test_both_orders_are_learned_from():
    objective = tiny()
    frames = smooth_pictures(4, 32).unflatten(0, (2, 2))
    turned = frames.flip(1)
    first, second = (objective(({"frames": x}), generator(1)).terms for x in (frames, turned))
    for name in ("l1", "ssim", "smooth", "regression"):
        assert torch.allclose(first[name], second[name], rtol=1e-4), name


def test_a_moving_scene_is_learned_without_being_told():
    """Textures that jump by two pixels this way or that: unsupervised flow must find which."""
    objective = tiny(alpha=1.0, weights=MotionWeights(smooth=0.05, regression=0.1))
    objective.expander = None
    draw = generator(3)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=4e-3)
    for _ in range(100):
        frames, _ = jumping(draw)
        optimiser.zero_grad()
        objective({"frames": frames}, draw).total.backward()
        optimiser.step()
    frames, truth = jumping(generator(4))
    with torch.no_grad():
        flow = objective.eval().flow(*frames.unbind(1))
    inner = in_view(truth)
    assert end_point_error(flow, truth, inner) < 0.5 * end_point_error(0 * flow, truth, inner)


def jumping(draw, count=6, size=32):
    """Frames `B 2 3 h w` and the flow of each."""
    seed = int(torch.randint(2**31, (), generator=draw))
    first = smooth_pictures(count, size, seed=seed)
    steps = 2 * torch.randint(-1, 2, (count, 2), generator=draw)
    second = torch.stack([shifted(picture, int(dx), int(dy)) for picture, (dx, dy) in zip(first, steps, strict=True)])
    return torch.stack([first, second], dim=1), steps.float()[:, :, None, None].expand(-1, -1, size, size)


def test_content_alone_comes_first_if_asked_for():
    frames = {"frames": smooth_pictures(4, 32).unflatten(0, (2, 2))}
    objective = tiny(content_only=0.5)
    early = objective(frames, generator(1))
    objective.after_step(0.5)
    late = objective(frames, generator(1))
    assert early.terms["ssim"] == 0 and late.terms["ssim"] > 0
    early.total.backward()
    assert all(not weight.grad.any() for weight in objective.head.parameters())


def test_roughness_is_forgiven_more_and_more_if_asked_for():
    frames = {"frames": smooth_pictures(4, 32).unflatten(0, (2, 2))}
    objective = tiny(relax=0.25)
    found = []
    for progress in (0.0, 0.5, 1.0):
        objective.after_step(progress)
        found.append(objective(frames, generator(1)).terms["smooth"])
    torch.testing.assert_close(torch.stack(found[1:]), found[0] * torch.tensor([0.5, 0.25]))
    with pytest.raises(ValueError, match="relax is a factor above 0"):
        tiny(relax=0.0)


def test_alpha_weighs_the_motion_branch():
    frames = {"frames": smooth_pictures(4, 32).unflatten(0, (2, 2))}
    none, some, more = (tiny(alpha=alpha)(frames, generator(1)).total for alpha in (0.0, 1.0, 2.0))
    assert torch.allclose(more - none, 2 * (some - none), rtol=1e-3) and some > none


def test_occlusions_are_left_out_where_most_of_the_picture_passes_the_round_trip():
    flow = torch.zeros(2, 2, 8, 8)  # one pair, in both orders
    flow[0, 0, :2] = 3.0
    assert torch.equal(visible(flow)[0, 0].bool(), torch.arange(8)[:, None].expand(8, 8) >= 2)
    flow[0, 0, :6] = 3.0
    assert torch.equal(visible(flow)[:1], in_view(flow)[:1])


def test_collapsed_features_cost_what_the_spread_term_says():
    objective = tiny()
    with torch.no_grad():
        for weight in objective.encoder.parameters():
            weight.zero_()
    terms = objective({"frames": smooth_pictures(4, 32).unflatten(0, (2, 2))}, generator(1)).terms
    assert terms["spread"] == pytest.approx(0.99, abs=1e-4) and terms["regression"] == 0


def test_a_single_frame_has_no_motion():
    with pytest.raises(ValueError, match="two frames"):
        tiny()({"frames": smooth_pictures(2, 32)[:, None]}, generator(1))


def test_views_without_a_part_that_makes_them_are_refused():
    with pytest.raises(ValueError, match="two views"):
        tiny(views=None)


def test_a_crop_keeps_the_range_and_differs_from_draw_to_draw():
    pictures = (smooth_pictures(4) / 255)[:, None, None]
    crop = RandomCrop()
    first, second = crop(pictures, generator(1)), crop(pictures, generator(2))
    assert first.shape == pictures.shape and not torch.equal(first, second)
    assert pictures.min() <= first.min() and first.max() <= pictures.max()
    whole = RandomCrop(area=(1.0, 1.0), aspect=1.0, mirror=0.0)
    assert torch.allclose(whole(pictures, generator(1)), pictures, atol=1e-5)


def test_two_equal_views_with_full_spread_cost_only_their_covariance():
    latents = noise(256, 8)
    terms = TwoViews().terms(latents * 2, latents * 2)
    assert terms["invariance"][1] == 0 and terms["variance"][1] == 0 and terms["covariance"][1] > 0
    missing, shared = VICReg().terms(latents * 2)
    assert missing == 0 and torch.allclose(2 * shared, terms["covariance"][1])
    with pytest.raises(ValueError, match="one shape"):
        TwoViews()(latents, latents[:9])


@pytest.mark.parametrize("sampler", [MomentMask, PlaceMask])
def test_factored_masks_hide_whole_moments_or_places(sampler):
    grid = (4, 3, 5)
    masks = sampler(grid=grid)(6, generator(0))
    hidden = torch.zeros(6, 60, dtype=torch.bool).scatter(1, masks.targets.flatten(1), True).view(6, *grid)
    seen = torch.zeros(6, 60, dtype=torch.bool).scatter(1, masks.context, True).view(6, *grid)
    assert torch.equal(hidden, ~seen) and hidden.any() and seen.any()
    same = hidden.flatten(2) if sampler is MomentMask else hidden.flatten(2).transpose(1, 2)
    assert torch.equal(same.all(dim=-1), same.any(dim=-1))


@pytest.mark.parametrize("sampler", [MomentMask, PlaceMask])
def test_factored_masks_hide_as_much_as_was_asked_for(sampler):
    masks = [sampler(grid=(8, 4, 4), share=(0.25, 0.5))(1, generator(seed)) for seed in range(60)]
    shares = torch.tensor([mask.targets.numel() / 128 for mask in masks])
    assert shares.min() >= 0.25 and shares.max() <= 0.5 and shares.std() > 0.02
    with pytest.raises(ValueError, match="share"):
        sampler(grid=(8, 4, 4), share=(0.5, 1.0))


def test_the_factored_variant_has_two_predictors_each_with_its_own_masks():
    objective = mc_jepa_factored.build(preset="tiny", generator=generator(0))
    clip = {"frames": (255 * torch.rand(2, 4, 3, 28, 28, generator=generator(1))).to(torch.uint8)}
    loss = objective(clip, generator(2))
    assert {"frames/motion", "frames/content"} <= set(loss.terms)
    with torch.no_grad():
        for weight in objective.predictor.predictors["motion"].parameters():
            weight.zero_()
    again = objective(clip, generator(2)).terms
    assert again["frames/motion"] != loss.terms["frames/motion"]
    assert again["frames/content"] == loss.terms["frames/content"]
    with pytest.raises(UnknownName, match="predictor"):
        objective.predictor(noise(1, 4, 32), torch.arange(4)[None], torch.arange(4)[None], which="sound")


@pytest.mark.parametrize("recipe", [mc_jepa, mc_jepa_factored])
def test_both_export_an_encoder_of_pictures(recipe):
    objective = recipe.build(preset="tiny", generator=generator(0))
    frames = torch.zeros(2, 3, 3, 28, 28, dtype=torch.uint8)
    tokens = objective.published(
        objective.prepare(frames[:, 0]) if recipe is mc_jepa else objective.still(frames[:, 0])
    )
    assert tokens.dim() == 3 and tokens.shape[-1] == objective.published.width
    assert torch.allclose(objective.encode(frames)[:, 0], tokens, atol=1e-5)


def test_the_encoder_fits_the_small_world_model_over_tokens():
    """Level 2 of the small pyramid gives the 8 x 8 tokens of width 96 that the small V-JEPA 2-AC plans over."""
    objective = mc_jepa.build(preset="small", level=2, generator=generator(0))
    assert objective.encode(torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 1, 64, 96)


def test_weights_can_be_drawn_again():
    objective = tiny()
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    draw_weights(objective, generator(0))
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
