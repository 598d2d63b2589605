"""Slots over bare patches that begin at clusters, and the broadcast decoder."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.slot_broadcast import BroadcastDecoder, place_waves
from jepa_mpc.encoders.slot_patches import begin_at_clusters, cluster_centres, over_bare_patches
from jepa_mpc.encoders.slot_sources import adjusted_rand
from jepa_mpc.encoders.slots import GaussianStart
from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator
from tests.rounding import rounding

COLOURS = torch.tensor([[0.7, 0.7, 0.7], [-1.6, -1.6, 1.8], [1.8, -1.6, -1.6], [-1.6, 1.2, -1.6]])


def scenes(count, size=16):
    """Pictures of three coloured squares at random places, and who owns each pixel."""
    stream, owners = generator(5), torch.zeros(count, size, size, dtype=torch.int64)
    for number in range(count):
        corners = torch.randperm(4, generator=stream)[:3]
        for body, corner in enumerate(corners.tolist()):
            row, column = 8 * (corner // 2), 8 * (corner % 2)
            shift = torch.randint(4, (2,), generator=stream).tolist()
            owners[number, row + shift[0] : row + shift[0] + 4, column + shift[1] : column + shift[1] + 4] = 1 + body
    return COLOURS[owners].permute(0, 3, 1, 2), owners


def begun(images):
    encoder = over_bare_patches(image=16, cell=2, num_slots=4, slot_dim=16)
    draw_weights(encoder, generator(0))
    begin_at_clusters(encoder, images, generator=generator(1), sharpness=8.0)
    return encoder


def test_slots_that_begin_at_clusters_bind_to_things_of_one_colour_without_a_label():
    images, owners = scenes(24)
    encoder = begun(images[:12])
    shares = encoder.track(images[12:, None]).shares[:, 0].unflatten(2, (8, 8))
    masks = shares.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flatten(2)
    assert adjusted_rand(masks, owners[12:].flatten(1)).mean() > 0.7
    assert shares.amax(dim=1).mean() > 0.8


def test_a_slot_keeps_its_colour_from_picture_to_picture():
    images, owners = scenes(24)
    encoder = begun(images[:12])
    winner = encoder.track(images[:, None]).shares[:, 0].argmax(dim=1).unflatten(1, (8, 8))
    middle = owners[:, ::2, ::2]
    for body in range(1, 4):
        won = winner[(middle == body) & (owners[:, 1::2, 1::2] == body)]
        assert (won == won.mode().values).float().mean() > 0.9


def test_what_slots_attend_to_is_held_and_what_they_carry_is_trained():
    images, _ = scenes(8)
    encoder = begun(images)
    names = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert "recurrence.attend.to_value.weight" in names and "recurrence.attend.cell.weight_hh" in names
    assert not {name for name in names if "to_key" in name or "to_query" in name or "start" in name or "patch" in name}


def test_clusters_need_learned_starts_and_pictures_of_the_right_size():
    images, _ = scenes(4)
    encoder = over_bare_patches(image=16, cell=2, num_slots=4, slot_dim=16)
    with pytest.raises(BadObservation, match="resize"):
        encoder(images[..., :8])
    encoder.start = GaussianStart(4, slot_dim=16)
    with pytest.raises(ValueError, match="learned initial slots"):
        begin_at_clusters(encoder, images, generator=generator(1))
    with pytest.raises(ValueError, match="not divisible"):
        over_bare_patches(image=16, cell=3, num_slots=4, slot_dim=16)


def test_centres_find_a_few_tokens_of_a_kind_beside_very_many_of_another():
    tokens = torch.cat([torch.zeros(500, 2), torch.tensor([[5.0, 0.0], [5.1, 0.0], [0.0, 5.0]])])
    centres = cluster_centres(tokens, 3, generator=generator(0))
    assert torch.cdist(torch.tensor([[0.0, 0.0], [5.05, 0.0], [0.0, 5.0]]), centres).amin(dim=1).max() < 1e-5


def test_the_decoder_mixes_what_every_slot_draws_by_masks_that_sum_to_one():
    decoder = BroadcastDecoder(8, num_places=9, output_dim=12, hidden=(16,), parts=4)
    draw_weights(decoder, generator(0))
    slots = torch.randn(2, 3, 8, generator=generator(1))
    drawn, masks = decoder.layers(slots)
    rebuilt, shares = decoder(slots)
    assert drawn.shape == (2, 3, 9, 12) and masks.shape == (2, 3, 9, 4)
    assert torch.allclose(masks.sum(dim=1), torch.ones(2, 9, 4)) and torch.allclose(shares, masks.mean(dim=3))
    pixel = sum(masks[:, n, :, 1] * drawn[:, n, :, 5] for n in range(3))  # second channel, second part
    assert torch.allclose(rebuilt[..., 5], pixel, **rounding(products=3, terms=16))
    assert torch.allclose(decoder(slots[:, [2, 0, 1]])[0], rebuilt, **rounding(products=3, terms=16))


def test_the_decoder_learns_to_draw_a_spot_where_its_slot_says():
    decoder = BroadcastDecoder(8, num_places=64, output_dim=1, hidden=(32,))
    draw_weights(decoder, generator(0))
    optimiser, stream = torch.optim.Adam(decoder.parameters(), lr=1e-2), generator(2)
    code = place_waves(64)[:, 2:10]
    losses = []
    for _ in range(150):
        at = torch.randint(64, (32,), generator=stream)
        wanted = torch.nn.functional.one_hot(at, 64).float() * 4
        loss = (decoder(code[at][:, None])[0][..., 0] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_bad_sizes_of_the_decoder_are_refused():
    with pytest.raises(ValueError, match="not divisible"):
        BroadcastDecoder(8, num_places=9, output_dim=10, parts=4)
    with pytest.raises(ValueError, match="square grid"):
        BroadcastDecoder(8, num_places=8, output_dim=3)
