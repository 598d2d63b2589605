"""The masked loss: what is compared with what, what moves and when, and the dense part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.errors import UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.types import Masks
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.parts.masks import LegacyTubes, Tubes
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective, MaskTask, Stream
from jepa_mpc.world_model.parts.objectives.seen import InverseRootDistance, Ramp, SeenLoss, alike
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from jepa_mpc.world_model.parts.targets import EMATarget, FrozenTarget, SharedTarget, constant_momentum
from jepa_mpc.world_model.recipes import vjepa2, vjepa2_1

BOTH = pytest.mark.parametrize("recipe", [vjepa2, vjepa2_1], ids=["vjepa2", "vjepa2_1"])


def clips(batch=3, frames=4, size=28, seed=0):
    shape = (batch, frames, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed, "clips"))


class Lookup(nn.Module):
    """An encoder that passes tokens on, times a weight."""

    width = 2

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x, keep=None):
        return self.factor * (x if keep is None else x.gather(1, keep[..., None].expand(-1, -1, 2)))


class MeanPlusPlace(nn.Module):
    """Predicts the mean of what is seen plus the number of the wanted place."""

    def forward(self, seen, seen_at, wanted_at):
        return seen.mean(1, keepdim=True) + wanted_at[..., None]

    def both(self, seen, seen_at, wanted_at):
        return self(seen, seen_at, wanted_at), seen + 1


class TwoBlocks:
    """Token 0 and 1 are seen, 2 and 3 are two blocks."""

    def __call__(self, batch, generator):
        context, targets = torch.tensor([[0, 1]]), torch.tensor([[[2], [3]]])
        return Masks(context=context.expand(batch, -1), targets=targets.expand(batch, -1, -1))


def small(**parts):
    encoder = Lookup()
    parts = {"target": FrozenTarget(encoder)} | parts
    tasks = [MaskTask(name="blocks", sampler=TwoBlocks())]
    return MaskedObjective(encoder=encoder, predictor=MeanPlusPlace(), streams=[Stream("points", tasks)], **parts)


POINTS = torch.tensor([[[0.0, 2.0], [2.0, 4.0], [3.0, 5.0], [7.0, 8.0]]])


def test_the_loss_is_the_mean_gap_over_all_blocks():
    loss = small()({"points": POINTS}, generator(0))
    # seen mean (1, 3): block 2 predicts (3, 5), block 3 predicts (4, 6); targets (3, 5) and (7, 8)
    assert float(loss.total.detach()) == pytest.approx((0 + 0 + 3 + 2) / 4)
    assert set(loss.terms) == {"points/blocks", "total"}


def test_a_shared_target_learns_and_a_frozen_one_does_not():
    for target, same in ((SharedTarget(), False), (FrozenTarget(Lookup()), True)):
        objective = small(target=target)
        objective({"points": POINTS}, generator(0)).total.backward()
        frozen = small(target=FrozenTarget(Lookup()))
        frozen({"points": POINTS}, generator(0)).total.backward()
        assert torch.equal(objective.encoder.factor.grad, frozen.encoder.factor.grad) is same


def test_a_regulariser_sees_the_tokens_that_were_seen():
    objective = small(regularisers=[("spread", 0.5, SIGReg(num_directions=8))])
    loss = objective({"points": POINTS.expand(4, -1, -1)}, generator(0))
    assert float(loss.total.detach()) == pytest.approx(
        float(loss.terms["points/blocks"] + 0.5 * loss.terms["points/spread"]), rel=1e-5
    )


def test_seen_tokens_count_with_the_ramp_and_their_nearness():
    nearness = InverseRootDistance((1, 4))
    objective = small(seen_loss=SeenLoss(nearness=nearness, ramp=Ramp(start=0.2, stop=0.4, height=0.5)))
    # every channel of both seen tokens is off by one; token 0 is 2 and 3 away from the blocks, token 1 is 1 and 2 away
    raw = sum(distance**-0.5 for distance in (2, 3, 1, 2)) / 4
    for progress, height in ((0.0, 0.0), (0.3, 0.25), (1.0, 0.5)):
        objective.after_step(progress)
        loss = objective({"points": POINTS}, generator(0))
        assert float(loss.terms["points/seen_raw"]) == pytest.approx(raw)
        assert float(loss.total.detach() - loss.terms["points/blocks"]) == pytest.approx(height * raw)


def test_distances_are_counted_in_time_row_and_column_for_any_batch():
    masks = Masks(context=torch.tensor([[0, 5, 23]]), targets=torch.tensor([[[6, 7]]]))  # grid of 2 x 3 x 4
    for batch in (1, 3):
        many = Masks(context=masks.context.expand(batch, -1), targets=masks.targets.expand(batch, -1, -1))
        distance = InverseRootDistance((3, 4)).distance(many)
        # 0 = (0, 0, 0), 5 = (0, 1, 1), 23 = (1, 2, 3); hidden 6 = (0, 1, 2), 7 = (0, 1, 3)
        wanted = torch.tensor([5**0.5, 1.0, 2**0.5]).expand(batch, -1)
        torch.testing.assert_close(distance, wanted)
    torch.testing.assert_close(InverseRootDistance((3, 4), unit=2.0)(masks), (wanted[:1] / 2).rsqrt())
    assert torch.equal(alike(masks), torch.ones(1, 3))


def test_streams_share_the_loss_by_weight_and_absent_ones_are_skipped():
    tasks = [MaskTask(name="blocks", sampler=TwoBlocks())]
    streams = [Stream("near", tasks), Stream("far", tasks, weight=3.0)]
    objective = MaskedObjective(
        encoder=Lookup(), predictor=MeanPlusPlace(), streams=streams, target=FrozenTarget(Lookup())
    )
    near, far = (
        float(objective({key: x}, generator(0)).total.detach()) for key, x in (("near", POINTS), ("far", POINTS + 2))
    )
    both = objective({"near": POINTS, "far": POINTS + 2}, generator(0)).total
    assert float(both.detach()) == pytest.approx((near + 3 * far) / 4)
    with pytest.raises(ValueError, match="must hold one of near, far; it holds sound"):
        objective({"sound": POINTS}, generator(0))


def test_levels_are_normalised_each_by_itself():
    x = torch.randn(2, 3, 8, generator=generator(0)) * torch.tensor([1.0] * 4 + [50.0] * 4) + 7
    normed = LatentNorm(groups=2)(x)
    torch.testing.assert_close(normed[..., :4], LatentNorm()(x[..., :4]))
    torch.testing.assert_close(normed[..., 4:], LatentNorm()(x[..., 4:]))
    assert not torch.allclose(normed, LatentNorm()(x))


@BOTH
def test_the_target_starts_as_a_copy_and_moves_after_steps_alone(recipe):
    objective = recipe.build(preset="tiny", generator=generator(0))
    pairs = list(zip(objective.encoder.parameters(), objective.target.encoder.parameters(), strict=True))
    assert all(torch.equal(own, copied) for own, copied in pairs)
    with torch.no_grad():
        for own, _ in pairs:
            own.add_(1.0)
    before = [copied.clone() for _, copied in pairs]
    objective({"frames": clips()}, generator(0)).total.backward()
    assert all(torch.equal(copied, old) for (_, copied), old in zip(pairs, before, strict=True))
    assert all(copied.grad is None for _, copied in pairs)
    objective.after_step(0.0)  # momentum 0.99: one hundredth of the way
    for (_, copied), old in zip(pairs, before, strict=True):
        torch.testing.assert_close(copied - old, torch.full_like(old, 0.01), atol=1e-6, rtol=1e-3)


@BOTH
def test_frames_are_encoded_one_by_one_by_the_target(recipe):
    objective = recipe.build(preset="tiny", generator=generator(0)).eval()
    frames = clips(2)
    latents = objective.encode(frames)
    assert latents.shape == (2, 4, 16, 32)  # the last level alone, 4 x 4 patches
    torch.testing.assert_close(objective.encode(frames[:1, 2:3])[0, 0], latents[0, 2], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for weight in objective.encoder.parameters():
            weight.zero_()
    assert torch.equal(objective.encode(frames), latents)


def test_pictures_of_the_batch_replace_frames_of_the_clips():
    objective = vjepa2_1.build(preset="tiny", generator=generator(0))
    own = objective({"frames": clips()}, generator(0)).terms
    same = objective({"frames": clips(), "images": clips()[:, :1]}, generator(0)).terms
    other = objective({"frames": clips(), "images": clips(seed=1)[:, :1]}, generator(0)).terms
    assert torch.equal(own["images/blocks"], same["images/blocks"])
    assert not torch.equal(own["images/blocks"], other["images/blocks"])
    assert torch.equal(own["frames/short"], other["frames/short"])
    alone = objective({"images": clips()[:, :1]}, generator(0)).terms
    assert {"images/blocks"} <= set(alone) and "frames/short" not in alone


def test_augmentation_changes_training_alone():
    def dark(frames, stream):
        return frames * 0

    objective = vjepa2.build(preset="tiny", augment=dark, generator=generator(0))
    plain = vjepa2.build(preset="tiny", generator=generator(0))
    batch = {"frames": clips()}
    wanted = plain(batch, generator(0)).total
    assert not torch.equal(objective.train()(batch, generator(0)).total, wanted)
    assert torch.equal(objective.eval()(batch, generator(0)).total, wanted)


@BOTH
def test_clips_of_another_size_are_refused_or_asked_for(recipe):
    wrong = {"frames": clips(size=35, frames=6)}
    objective = recipe.build(preset="tiny", generator=generator(0))
    with pytest.raises(ValueError, match="made for images of 28 x 28, got 35 x 35"):
        objective(wrong, generator(0))
    with pytest.raises(ValueError, match="made for 32 tokens and the inputs give 48"):
        objective({"frames": clips(size=28, frames=6)}, generator(0))
    with pytest.raises(ValueError, match="made for images of 28 x 28, got 14 x 14"):
        objective({"frames": clips(size=14, frames=16)}, generator(0))  # as many tokens in another grid
    fitting = recipe.build(preset="tiny", image=35, frames=6, generator=generator(0))
    assert bool(fitting(wrong, generator(0)).total.isfinite())
    with pytest.raises(ValueError, match="patches of 7 px"):
        recipe.build(preset="tiny", image=30)


def test_the_sampler_is_chosen_by_name():
    kinds = {name: type(vjepa2.build(preset="tiny", masks=name).inputs[0].tasks[0].sampler) for name in vjepa2.TUBES}
    assert kinds == {"tubes": Tubes, "legacy_tubes": LegacyTubes}
    with pytest.raises(UnknownName, match="legacy_tubes"):
        vjepa2.build(preset="tiny", masks="clouds")


def test_what_makes_no_objective_is_refused():
    task = MaskTask(name="a", sampler=TwoBlocks())
    with pytest.raises(ValueError, match="names of their own"):
        Stream("frames", [task, task])
    with pytest.raises(ValueError, match="at least one stream"):
        MaskedObjective(encoder=Lookup(), predictor=MeanPlusPlace(), streams=[], target=SharedTarget())
    with pytest.raises(ValueError, match="takes no images"):
        small().encode(clips())
    with pytest.raises(ValueError, match="stop before it starts"):
        Ramp(start=1.0, stop=0.5, height=1.0)


@BOTH
def test_the_momentum_can_be_chosen(recipe):
    objective = recipe.build(preset="tiny", momentum=(0.9, 0.7))
    assert objective.target.momentum(0.5) == pytest.approx(0.8)
    assert recipe.build(preset="tiny").target.momentum(0.0) == pytest.approx(0.99)


def test_a_configuration_can_bring_a_regulariser():
    part = {"_target_": "sigreg", "num_directions": 8}
    spec = {"_target_": "vjepa2", "preset": "tiny", "regularisers": [["spread", 0.1, part]]}
    loss = assemble(spec, generator=generator(0))({"frames": clips()}, generator(0))
    assert bool(loss.terms["frames/spread"] > 0)


def test_a_constant_momentum_is_constant():
    target = EMATarget(Lookup(), momentum=constant_momentum(0.75))
    encoder = Lookup()
    with torch.no_grad():
        encoder.factor.fill_(5.0)
    target.update(encoder, 0.9)
    assert float(target.encoder.factor) == pytest.approx(2.0)


@pytest.mark.parametrize("wrong", [(0.9, 1.5), (-0.1, 1.0), (float("nan"), 1.0)])
def test_a_momentum_is_a_share(wrong):
    with pytest.raises(ValueError, match="a momentum lies between 0 and 1"):
        vjepa2.build(preset="tiny", momentum=wrong)
