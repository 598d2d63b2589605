"""Neighbourhoods of point clouds, the orders of their centres, the encoder, and features of a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_mpc.clouds import farthest_points
from jepa_mpc.encoders.cloud_features import encode_cloud
from jepa_mpc.encoders.layers.clouds import (
    ORDERS,
    UnitSphere,
    Workspace,
    farthest,
    nearest_from_corner,
    neighbours,
    picked,
)
from jepa_mpc.encoders.layers.drops import DropPath, Drops
from jepa_mpc.encoders.points import PointSizes, PointTokens, point_encoder, summary
from jepa_mpc.errors import BadObservation, UnknownName
from jepa_mpc.seeding import generator

SIZES = PointSizes(width=24, depth=2, heads=2, mlp_dim=48, groups=16, group_size=6, net=(8, 12, 16), place=16)
CLOUDS = torch.randn(3, 64, 3, generator=generator(0, "clouds"))


def encoder(**changes):
    torch.manual_seed(0)
    return point_encoder(SIZES, **changes).eval()


def test_a_batch_is_sampled_as_each_cloud_by_itself():
    start = torch.tensor([0, 5, 63])
    chosen = farthest(CLOUDS, 20, start=start)
    for cloud, one, first in zip(CLOUDS, chosen, start.tolist(), strict=True):
        assert np.array_equal(one.numpy(), farthest_points(cloud.numpy(), 20, start=first))


def test_neighbours_are_the_nearest_points_in_order():
    near = picked(CLOUDS, neighbours(CLOUDS[:, :4], CLOUDS, 5))
    away = (near - CLOUDS[:, :4, None]).norm(dim=-1)
    assert (away[..., 0] == 0).all() and (away.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_an_order_visits_every_centre_once(name):
    order = ORDERS[name](CLOUDS)
    assert torch.equal(order.sort(dim=1).values, torch.arange(64).expand(3, -1))


def test_a_walk_keeps_neighbours_together():
    draw = generator(1)
    cloud = torch.randn(20, 64, 3, generator=draw)
    shuffled = picked(cloud, torch.rand(20, 64, generator=draw).argsort(dim=1))
    walked = picked(cloud, nearest_from_corner(cloud))
    length = [(one[:, 1:] - one[:, :-1]).norm(dim=-1).mean() for one in (walked, shuffled)]
    assert length[0] < 0.6 * length[1]
    spread = [torch.cdist(one[:, 20:30], one[:, 20:30]).flatten(1).amax(dim=1) for one in (walked, shuffled)]
    assert (spread[0] < spread[1]).float().mean() >= 0.9


def test_the_order_of_points_does_not_matter_beyond_the_first():
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(63, generator=generator(2))])
    network = encoder()
    assert torch.allclose(network(CLOUDS[:, order]), network(CLOUDS), atol=1e-5)


def test_tokens_that_are_not_kept_are_not_seen():
    network = encoder()
    keep = torch.tensor([[3, 1, 8]]).expand(3, -1)
    x = network.tokens(CLOUDS)
    assert torch.allclose(network(CLOUDS, keep), network.trunk(x.at(keep)), atol=1e-6)
    assert network(CLOUDS, keep).shape == (3, 3, 24) and summary(network(CLOUDS)).shape == (3, 48)


def test_blocks_work_on_the_seen_tokens_alone():
    network, seen = encoder(), []
    for block in network.trunk.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    network(CLOUDS, torch.tensor([[3, 1, 8]]).expand(3, -1))
    assert seen == [3, 3]


def test_places_may_be_told_to_the_first_block_alone():
    torch.manual_seed(0)
    first = point_encoder(PointSizes(**{**vars(SIZES), "placed": 1})).eval()
    first.load_state_dict(encoder().state_dict())
    assert not torch.allclose(first(CLOUDS), encoder()(CLOUDS), atol=1e-3)


def test_the_unit_sphere_forgets_place_and_size_and_the_workspace_keeps_them():
    moved = 3 * CLOUDS + torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(UnitSphere()(moved), UnitSphere()(CLOUDS), atol=1e-5)
    assert float(UnitSphere()(CLOUDS).norm(dim=-1).max()) == pytest.approx(1.0, abs=1e-5)
    inside = Workspace(centre=(1.0, 2.0, 3.0), half=3.0)(moved)
    assert torch.allclose(inside, CLOUDS, atol=1e-6)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        Workspace(half=0)


def test_dropped_paths_are_whole_samples_and_keep_the_mean():
    torch.manual_seed(0)
    branch = DropPath(0.25)
    out = branch(torch.ones(4000, 2, 3))
    share = float((out[:, 0, 0] == 0).float().mean())
    assert ((out == 0).all(dim=(1, 2)) | (out > 1).all(dim=(1, 2))).all() and abs(share - 0.25) < 0.03
    assert torch.equal(branch.eval()(out), out)
    assert [Drops(path=0.2).at(index, 3).path for index in range(3)] == [0.0, 0.1, 0.2]
    with pytest.raises(ValueError, match="dropout rates must be in"):
        Drops(attention=1.0)


@pytest.mark.parametrize(
    ("clouds", "said"),
    [
        (torch.zeros(2, 15, 3), r"at least 16 points for 16 groups of 6, got \(2, 15, 3\)"),
        (torch.zeros(2, 0, 3), r"at least 16 points .* got \(2, 0, 3\)"),
        (torch.zeros(2, 64, 4), r"expected clouds \(B, G, 3\) of at least 16 points"),
        (CLOUDS.index_fill(0, torch.tensor([1]), torch.nan), "1 of 3 clouds have points that are not finite"),
    ],
)
def test_bad_clouds_are_told_in_one_sentence(clouds, said):
    with pytest.raises(BadObservation, match=said):
        encoder()(clouds)


def test_settings_without_sense_are_refused():
    with pytest.raises(ValueError, match="need groups of points, got 0 groups of 6"):
        PointTokens(PointSizes(**{**vars(SIZES), "groups": 0}))
    with pytest.raises(UnknownName, match="unknown order of points 'hilbert'; known: morton"):
        PointTokens(PointSizes(**{**vars(SIZES), "order": "hilbert"}))


def test_a_file_gives_features_in_one_call(tmp_path):
    cloud = np.random.default_rng(0).standard_normal((500, 3))
    np.save(tmp_path / "a.npy", cloud)
    network = encoder().train()
    features = encode_cloud(tmp_path / "a.npy", network, points=100)
    thin = cloud.astype(np.float32)[farthest_points(cloud, 100)]
    assert torch.equal(features, network.eval()(torch.from_numpy(thin)[None])) and features.shape == (1, 16, 24)
    np.save(tmp_path / "few.npy", cloud[:10])
    with pytest.raises(BadObservation, match="few.npy has 10 points where 16 are needed"):
        encode_cloud(tmp_path / "few.npy", network)
    np.save(tmp_path / "bad.npy", np.full((20, 3), np.inf))
    with pytest.raises(BadObservation, match="20 of 20 points that are not finite"):
        encode_cloud(tmp_path / "bad.npy", network)
