"""Slots: who gets which token, what is carried to the next frame, and what foreign files must hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_mpc.encoders.adapters import videosaur
from jepa_mpc.encoders.layers.slot_attention import NormedStep, SlotAttention, SlotBlock, normed_mlp
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.slot_decoder import SlotMixer
from jepa_mpc.encoders.slot_sources import StateSlots, adjusted_rand, pooled
from jepa_mpc.encoders.slots import GaussianStart, LearnedStart, PatchFeatures, SlotEncoder, SlotRecurrence
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.seeding import generator
from tests.rounding import rounding


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "noise"))


def encoder(start=LearnedStart, *, seed: int = 0) -> SlotEncoder:
    made = SlotEncoder(
        features=PatchFeatures(width=12, size=16, strides=(2, 2)),
        embed=normed_mlp(12, hidden=16),
        start=start(3, slot_dim=8),
        recurrence=SlotRecurrence(SlotAttention(12, slot_dim=8, hidden=16), step=NormedStep(8), first=3),
        slot_dim=8,
    )
    draw_weights(made, generator(seed))
    return made.eval()


def test_shares_of_a_token_sum_to_one_over_the_slots():
    _, shares = SlotAttention(6, slot_dim=8)(noise(2, 4, 8), noise(2, 9, 6))
    assert torch.allclose(shares.sum(dim=1), torch.ones(2, 9), atol=1e-6)


@pytest.mark.parametrize("memory", ["normed", "plain"])
def test_permuted_slots_give_permuted_slots(memory):
    attention = SlotAttention(6, slot_dim=8, hidden=16, memory=memory)
    slots, tokens, order = noise(2, 4, 8), noise(2, 9, 6), torch.tensor([2, 0, 3, 1])
    (plain, shares), (permuted, moved) = attention(slots, tokens), attention(slots[:, order], tokens)
    assert torch.allclose(plain[:, order], permuted, atol=1e-5) and torch.allclose(shares[:, order], moved, atol=1e-5)


def test_permuted_tokens_give_the_same_slots():
    attention, tokens = SlotAttention(6, slot_dim=8), noise(2, 9, 6)
    slots, order = noise(2, 4, 8), torch.randperm(9, generator=generator(1))
    assert torch.allclose(attention(slots, tokens)[0], attention(slots, tokens[:, order])[0], atol=1e-5)


def test_queries_may_be_of_another_width_than_slots():
    attention = SlotAttention(6, slot_dim=8, inner=4)
    slots, shares = attention(noise(2, 4, 8), noise(2, 9, 6))
    assert slots.shape == (2, 4, 8) and shares.shape == (2, 4, 9) and attention.scale == 0.5


def test_two_flavours_of_memory_differ():
    normed, plain = SlotAttention(6, slot_dim=8), SlotAttention(6, slot_dim=8, memory="plain")
    plain.load_state_dict(normed.state_dict())
    slots, tokens = noise(2, 4, 8), noise(2, 9, 6)
    assert not torch.allclose(normed(slots, tokens)[0], plain(slots, tokens)[0])


@pytest.mark.parametrize(("change", "told"), [({"memory": "both"}, "memory"), ({"iterations": 0}, "one iteration")])
def test_settings_that_do_not_exist_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        SlotAttention(6, slot_dim=8, **change)


def test_the_inverse_scale_sharpens_attention_as_a_query_scaled_by_the_head_width():
    standard, inverse = SlotBlock(8, heads=2), SlotBlock(8, heads=2, logit_scale="inverse")
    inverse.load_state_dict(standard.state_dict())
    x = noise(1, 5, 8)
    assert not torch.allclose(standard(x), inverse(x))
    with torch.no_grad():
        for weight in (standard.attention.to_qkv.weight, standard.attention.to_qkv.bias):
            weight[:8] *= 4  # head width 4: q k / sqrt(4) becomes q k * sqrt(4)
    assert torch.allclose(standard(x), inverse(x), **rounding(products=6, terms=32))
    with pytest.raises(ValueError, match="logit_scale"):
        SlotBlock(8, heads=2, logit_scale="double")


def test_a_block_with_itself_as_memory_is_plain_self_attention():
    block, x = SlotBlock(8, heads=2), noise(1, 5, 8)
    assert torch.allclose(block(x), block(x, block.norm_attention(x)), **rounding(products=6, terms=32))


def test_tracking_frame_by_frame_is_tracking_the_whole_video():
    made, frames = encoder(), noise(2, 3, 3, 16, 16)
    whole = made.track(frames)
    begin = whole.following[:, 0]
    made.recurrence.first = made.recurrence.attend.iterations
    later = made.track(frames[:, 1:], begin=begin)
    assert torch.allclose(whole.slots[:, 1:], later.slots, atol=1e-5)


def test_slots_of_a_picture_do_not_depend_on_the_other_pictures():
    made, frames = encoder(), noise(3, 3, 16, 16)
    assert torch.allclose(made(frames)[:1], made(frames[:1]), **rounding(products=24, terms=75))


def test_later_frames_leave_earlier_slots_untouched():
    made, frames = encoder(), noise(1, 3, 3, 16, 16)
    other = frames.clone()
    other[:, 2] = 0
    assert torch.equal(made.track(frames).slots[:, :2], made.track(other).slots[:, :2])


def test_a_gaussian_start_draws_from_its_generator_and_is_fixed_without_one():
    start = GaussianStart(3, slot_dim=8)
    assert torch.equal(start(2)[0], start(2)[1]) and torch.equal(start(2), start(2))
    assert torch.equal(start(2, generator(1)), start(2, generator(1)))
    assert not torch.equal(start(2, generator(1)), start(2, generator(2)))
    many = start(4000, generator(0))
    assert abs(float(many.detach().std()) - 8**-0.5) < 0.02  # 96 000 draws: the error of the spread is below 0.001


def test_gradient_reaches_every_weight_of_an_encoder():
    made = encoder(GaussianStart)
    made.track(noise(2, 2, 3, 16, 16)).following.square().sum().backward()
    assert not [name for name, weight in made.named_parameters() if not weight.grad.abs().sum() > 0]


def test_pictures_of_another_size_and_partial_pictures_are_refused():
    with pytest.raises(BadObservation, match=r"expected images \(3, 16, 16\)"):
        encoder()(noise(1, 3, 20, 20))
    with pytest.raises(ValueError, match="whole images"):
        encoder()(noise(1, 3, 16, 16), torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="not divisible"):
        PatchFeatures(width=4, size=18, strides=(2, 2))


def test_the_mixture_of_every_place_sums_to_one_and_ignores_the_order_of_slots():
    mixer, slots, order = SlotMixer(8, num_places=9, output_dim=5, depth=1, hidden=(16,)), noise(2, 4, 8), [2, 0, 3, 1]
    (out, shares), (permuted, moved) = mixer(slots), mixer(slots[:, order])
    assert torch.allclose(shares.sum(dim=1), torch.ones(2, 9), atol=1e-6)
    assert torch.allclose(out, permuted, atol=1e-5) and torch.allclose(shares[:, order], moved, atol=1e-5)


def test_foreign_weights_are_found_under_any_of_their_prefixes():
    weights = {
        "norm_features.weight": torch.ones(6), "norm_features.bias": torch.zeros(6),
        "norm_slots.weight": torch.ones(8), "norm_slots.bias": torch.zeros(8),
        "to_q.weight": noise(8, 8), "to_k.weight": noise(8, 6), "to_v.weight": noise(8, 6),
        **{f"gru.{name}": value for name, value in nn.GRUCell(8, 8).state_dict().items()},
    }  # fmt: skip
    slots, tokens = noise(1, 3, 8), noise(1, 9, 6)
    wanted = videosaur.slot_attention(weights)(slots, tokens)[0]
    for prefix in ("processor.module.corrector.", "model.slot_attention."):
        named = {prefix + name: value for name, value in weights.items()} | {"other": torch.zeros(1)}
        found = videosaur.slot_attention(videosaur.part(named, "attend"))
        assert torch.equal(found(slots, tokens)[0], wanted)
    with pytest.raises(BadCheckpoint, match="to_v.weight"):
        videosaur.slot_attention({name: value for name, value in weights.items() if name != "to_v.weight"})
    with pytest.raises(BadCheckpoint, match="expected names like"):
        videosaur.part({"other": torch.zeros(1)}, "attend")


def released_file() -> dict[str, torch.Tensor]:
    """A whole file of another project's spelling: 6 features, slots of 8."""
    block, cell = torch.nn.TransformerEncoderLayer(8, 4, 32), nn.GRUCell(8, 8)
    attention = {
        "norm_features.weight": torch.ones(8), "norm_features.bias": torch.zeros(8),
        "norm_slots.weight": torch.ones(8), "norm_slots.bias": torch.zeros(8),
        **{f"to_{name}.weight": noise(8, 8, seed=index) for index, name in enumerate("qkv")},
        **{f"gru.{name}": value for name, value in cell.state_dict().items()},
    }  # fmt: skip
    step = {name.replace("in_proj_", "qkv."): value for name, value in block.state_dict().items()}
    mlp = {f"layers.{name}": value for name, value in normed_mlp(6, hidden=12, output=8).state_dict().items()}
    return {
        **{f"encoder.module.output_transform.{name}": value for name, value in mlp.items()},
        **{f"processor.module.corrector.{name}": value for name, value in attention.items()},
        **{f"processor.module.predictor.blocks.0.{name}": value for name, value in step.items()},
        "initializer.mean": noise(1, 1, 8), "initializer.log_std": noise(1, 1, 8),
    }  # fmt: skip


class Columns(nn.Module):
    """Pixels as tokens of six numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x], dim=1).flatten(2).transpose(1, 2)


def test_a_whole_slot_encoder_is_read_from_a_file(tmp_path):
    torch.save({"state_dict": released_file(), "epoch": 3}, tmp_path / "slots.ckpt")
    made = videosaur.load(tmp_path / "slots.ckpt", features=Columns(), num_slots=5)
    tracks = made.track(noise(2, 3, 3, 4, 4))
    assert tracks.slots.shape == (2, 3, 5, 8) and tracks.shares.shape == (2, 3, 5, 16)
    assert torch.equal(made.track(noise(2, 3, 3, 4, 4)).slots, tracks.slots)


def test_pickled_modules_are_refused(tmp_path):
    torch.save({"whole": nn.Linear(2, 2)}, tmp_path / "module.ckpt")
    with pytest.raises(BadCheckpoint, match="state_dict"):
        videosaur.load(tmp_path / "module.ckpt", features=Columns(), num_slots=5)


# truth of a simulator


def test_tokens_are_pooled_by_their_object_and_what_is_out_of_sight_is_zero():
    tokens = torch.tensor([[[1.0], [3.0], [5.0], [9.0]]])
    slots = pooled(tokens, torch.tensor([[0, 0, 2, 7]]), num_slots=4)
    assert slots[0, :, 0].tolist() == [2.0, 0.0, 5.0, 0.0]


def test_state_slots_are_fixed_and_equal_for_equal_bodies():
    made, bodies = StateSlots(7, width=8, generator=generator(0)), noise(2, 3, 4, 7)
    assert torch.equal(made(bodies), StateSlots(7, width=8, generator=generator(0))(bodies))
    assert not any(weight.requires_grad for weight in made.parameters())
    assert torch.allclose(made(bodies[:, :, [1, 0]]), made(bodies)[:, :, [1, 0]])


def split(*labels: int, slots: int = 4) -> torch.Tensor:
    return nn.functional.one_hot(torch.tensor([labels]), slots).float().transpose(1, 2)


def test_the_rand_index_ignores_names_and_the_background():
    truth = torch.tensor([[0, 0, 1, 1, 2, 2]])
    assert adjusted_rand(split(3, 1, 2, 2, 0, 0), truth) == 1
    assert adjusted_rand(split(3, 1, 2, 2, 0, 0), truth, background=None) < 1
    assert adjusted_rand(split(1, 1, 1, 1, 1, 1), truth) == 0  # everything in one slot
    # counts 2 1 / 0 1 / 0 2 over 6 tokens: pairs 1 + 0 + 1, rows 3 + 0 + 1, columns 1 + 6, all 15
    known = adjusted_rand(split(0, 0, 1, 1, 1, 1), torch.tensor([[0, 0, 0, 1, 2, 2]]), background=None)
    assert torch.isclose(known, torch.tensor([(2 - 4 * 7 / 15) / (11 / 2 - 4 * 7 / 15)], dtype=torch.float64))


def test_splits_by_chance_score_near_zero():
    draw = generator(0)
    truth = torch.randint(0, 4, (200, 400), generator=draw)
    shares = torch.rand(200, 4, 400, generator=draw)
    assert abs(float(adjusted_rand(shares, truth).mean())) < 0.005  # spread of the mean: about 0.0003
