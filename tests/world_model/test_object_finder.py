"""Finding the object that another image shows: the network, its loss, and labels that are completed by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.object_finder import UNIT_M, ObjectFinder
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.face.training.found_labels import complete, smoothed
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.framebank import FrameBank
from jepa_mpc.trajectories.mixture import MixedBank
from jepa_mpc.types import Observation
from jepa_mpc.world_model.agents.handling_eyes import HandlingEyes
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.keypoints import load_object_finder
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.parts.augment import Augmentation
from jepa_mpc.world_model.parts.finding import ObjectFindingObjective
from tests import tiny

SIZE = 32
FINDER = {"_target_": "object_finder", "preset": "tiny"}


def finder(seed: int = 0) -> ObjectFinder:
    return assemble(FINDER, generator=generator(seed)).encoder.eval()


def table(colours: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Images `B 3 s s` (0..255) with a disc of each colour `B N 3` at each place `B N 2` in [-1, 1]."""
    axis = torch.linspace(-1, 1, SIZE)
    images = torch.full((len(colours), 3, SIZE, SIZE), 60.0)
    for colour, place in zip(colours.unbind(1), places.unbind(1), strict=True):
        inside = (axis - place[:, :1, None]) ** 2 + (axis[:, None] - place[:, 1:, None]) ** 2 < 0.05
        images = torch.where(inside[:, None], colour[..., None, None], images)
    return images


def scenes(worlds: int, number: int) -> dict[str, torch.Tensor]:
    """Windows of two frames, an object and a distractor of other colours: beside the hand, then in the hand."""
    draw = generator(number, "scenes")
    colours = 255 * torch.rand(worlds, 2, 3, generator=draw)
    places = 1.4 * torch.rand(worlds, 2, 2, generator=draw) - 0.7
    places[:, 1] = torch.where(
        (places[:, 0] - places[:, 1]).norm(dim=1, keepdim=True) < 0.6, -places[:, 0], places[:, 1]
    )
    beside = table(colours, places)
    in_hand = table(colours, torch.stack([torch.zeros(worlds, 2), torch.full((worlds, 2), 0.8)], dim=1))
    felt = torch.zeros(worlds, 2, 3)
    felt[:, 0, :2] = UNIT_M * places[:, 0]
    frames = torch.stack([beside, in_hand], dim=1)
    return {"frames": frames, "object_felt": felt, "proprio": torch.full((worlds, 2, 7), 0.1)}


def seen_from(found: ObjectFinder, now: torch.Tensor, shown: torch.Tensor, height_m: float = 0.1) -> torch.Tensor:
    """Places `B 3` (m) of what each of `shown` shows, in each of `now`."""
    place, _ = found(now[:, None] / 255, shown / 255, torch.full((len(now), 1), height_m))
    return UNIT_M * place[:, 0]


def test_one_network_learns_which_of_two_things_is_meant_from_the_other_image_alone():
    objective = ObjectFindingObjective(
        ObjectFinder(widths=(8, 16, 16, 16), keypoints=4, hidden=32), augment=Augmentation([])
    )
    draw_weights(objective, generator(0))
    optimiser = torch.optim.AdamW(objective.parameters(), lr=4e-3)
    for number in range(300):
        optimiser.zero_grad()
        objective(scenes(32, number), generator(number)).total.backward()
        optimiser.step()
    fresh = scenes(64, 10_000)
    now, shown, wanted = fresh["frames"][:, 0], fresh["frames"][:, 1], fresh["object_felt"][:, 0]
    off, misled = (
        (seen_from(objective.eval().encoder, now, other) - wanted).norm(dim=1).mean()
        for other in (shown, shown.flip(0))
    )
    assert off < 0.02 and off < 0.4 * misled


def test_unknown_places_and_windows_without_an_image_of_the_object_teach_nothing():
    objective = assemble(FINDER, generator=generator(0)).eval()
    batch = scenes(4, 0)
    whole = objective(batch, generator(0)).terms["place"]
    batch["object_felt"][2:, 1] = torch.tensor([0.3, 0.0, 0.0])  # nothing in or below the hand, in these two worlds
    batch["object_felt"][2:, 0] = torch.nan
    half = objective(batch, generator(0)).terms["place"]
    alone = objective({name: rows[:2] for name, rows in batch.items()}, generator(0)).terms["place"]
    torch.testing.assert_close(half, alone)
    assert not torch.allclose(whole, half)
    batch["object_felt"][:] = torch.nan
    assert objective(batch, generator(0)).total == 0


def test_logs_without_the_column_and_other_cameras_are_refused():
    objective = assemble(FINDER, generator=generator(0))
    with pytest.raises(ValueError, match="object_felt.*policy=handle"):
        objective({"frames": tiny.frames(2, 3, channels=3)}, generator(0))
    with pytest.raises(ValueError, match="proprio.*policy=handle"):
        objective({"frames": tiny.frames(2, 3, channels=3), "object_felt": torch.zeros(2, 3, 3)}, generator(0))
    with pytest.raises(ValueError, match="got 9 channels: cameras="):
        objective(
            {
                "frames": tiny.frames(2, 3, channels=9),
                "object_felt": torch.zeros(2, 3, 3),
                "proprio": torch.zeros(2, 3, 7),
            },
            generator(0),
        )
    images = torch.rand(2, 4, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="expected images"):
        finder()(images, torch.rand(1, 3, SIZE, SIZE), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="heights of the hand"):
        finder()(images, torch.rand(2, 3, SIZE, SIZE), torch.zeros(2))


def test_exposure_and_tint_do_not_matter_but_colour_does():
    batch = scenes(8, 1)
    now, shown = batch["frames"][:, 0], batch["frames"][:, 1]
    place = seen_from(finder(), now, shown)
    dimmed = [0.4 * each + torch.tensor([20.0, 0.0, 40.0])[:, None, None] for each in (now, shown)]
    torch.testing.assert_close(seen_from(finder(), *dimmed), place, atol=2e-3, rtol=0)
    assert not torch.allclose(seen_from(finder(), now, shown.flip(1)), place, atol=1e-4)


def test_frames_of_an_episode_are_matched_with_one_image_and_the_height_counts():
    frames = scenes(6, 2)["frames"][:, 0]
    heights = torch.linspace(0.05, 0.3, 6)
    place, doubt_m = finder().find(frames, frames[2], heights)
    assert place.shape == (6, 3) and doubt_m.shape == (6,) and (doubt_m > 0).all()
    one, _ = finder().find(frames[4:5], frames[2], heights[4:5])
    torch.testing.assert_close(one[0], place[4], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(finder().find(frames, frames[2], heights + 0.1)[0], place, atol=1e-4)


def log(*, cameras: tuple[str, ...] = ("left", "wrist"), size: int = 8) -> tuple[FrameBank, torch.Tensor]:
    """Two episodes: an object is seen, pushed by a hand that feels nothing, and grasped. Its places are told, too.

    The first pixels of the hand's images say where it is seen from the hand, in centimetres.
    """
    hand = torch.tensor([[0.5, 0.0, 0.12], [0.45, 0.0, 0.1], [0.41, 0.0, 0.02], [0.43, 0.0, 0.02], [0.47, 0.0, 0.02]])
    thing = torch.tensor(
        [[0.45, 0.0, 0.02], [0.45, 0.0, 0.02], [0.45, 0.0, 0.02], [0.47, 0.0, 0.02], [0.47, 0.0, 0.02]]
    )
    apart = (thing - hand).repeat(2, 1)
    frames = torch.zeros(10, 3 * len(cameras), size, size, dtype=torch.uint8)
    frames[:, -3:, 0, 0] = (100 + 1000 * apart).round().to(torch.uint8)
    felt = torch.full((10, 3), torch.nan)
    felt[[1, 4]] = apart[[1, 4]]  # nothing was felt in the second episode
    proprio = torch.cat([torch.full((10, 1), 0.04), hand.repeat(2, 1), torch.zeros(10, 3)], dim=1)
    bank = FrameBank(
        frames=frames, actions=torch.zeros(10, 3), proprio=proprio, offsets=torch.tensor([0, 5, 10]),
        groups=torch.tensor([0, 1]), episodes=torch.tensor([0, 1]), cameras=cameras, dt_s=0.24,
        extras={"object_felt": felt},
    )  # fmt: skip
    return bank, apart


class Told(ObjectFinder):
    """Finds the object where the first pixels say; not sure of the last frame but one."""

    def find(self, now, shown, height):
        doubt_m = torch.full((len(now),), 0.005)
        doubt_m[3] = 0.5
        return (now[:, :, 0, 0].float() - 100) / 1000, doubt_m


TOLD = Told(widths=(8, 8, 8, 8), keypoints=1, hidden=8)


def test_frames_in_which_nothing_was_felt_get_labels_by_sight():
    bank, apart = log()
    made = complete(bank, TOLD, camera="wrist").extras["object_felt"]
    torch.testing.assert_close(made[:3], apart[:3], atol=6e-3, rtol=0)
    assert torch.equal(made[[1, 4]], apart[[1, 4]])  # what was felt stays
    assert made[5:].isnan().all()  # no image of this episode says what the object looks like
    assert bank.extras["object_felt"].isnan().sum() == 24  # the log itself stays as it was
    assert made[3].isnan().all()  # under a hand that may have pushed it, and the finder is not sure


def test_logs_without_labels_or_without_the_camera_cannot_be_completed():
    bank, _ = log()
    with pytest.raises(ValueError, match="policy=handle"):
        complete(replace(bank, extras={}), TOLD, camera="wrist")
    with pytest.raises(ValueError, match="wrist.*left, wrist2"):
        complete(replace(bank, cameras=("left", "wrist2")), TOLD, camera="wrist")
    mixture = MixedBank(banks=(bank, replace(bank, extras={})), weights=(1.0, 1.0))
    first, second = complete(mixture, TOLD, camera="wrist").banks
    assert first.extras["object_felt"].isfinite().sum() > bank.extras["object_felt"].isfinite().sum()
    assert not second.extras


def test_a_trained_finder_is_loaded_with_its_camera_and_other_checkpoints_are_refused(tmp_path):
    objective = assemble(FINDER, generator=generator(3))
    seen = tiny.interface(cameras=("wrist",), actions=())
    save_world_model(tmp_path / "finder", objective, system=FINDER, interface=seen)
    loaded = load_object_finder(tmp_path / "finder")
    assert loaded.camera == "wrist" and not any(weight.requires_grad for weight in loaded.network.parameters())
    twin = assemble(tiny.HANDLING | {"finder": loaded.described}, generator=generator(0)).finder
    for name, weight in objective.encoder.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], weight)
        assert twin.state_dict()[name].shape == weight.shape
    save_world_model(tmp_path / "two", objective, system=FINDER, interface=tiny.interface(actions=()))
    with pytest.raises(BadCheckpoint, match="which camera"):
        load_object_finder(tmp_path / "two")
    with pytest.raises(BadCheckpoint, match="finds objects"):
        load_object_finder(tiny.save(tmp_path / "world"))


def test_a_world_model_with_a_finder_looks_for_the_object_of_the_goal_image(tmp_path):
    described = tiny.HANDLING | {"finder": {"_target_": "encoder_of", "system": FINDER}}
    objective = assemble(described, generator=generator(0))
    assert not any(weight.requires_grad for weight in objective.finder.parameters())
    seen = tiny.interface(cameras=("left", "right", "wrist"), actions=tiny.HANDLING_ACTIONS)
    save_world_model(tmp_path / "both", objective, system=described, interface=seen)
    model = load_world_model(tmp_path / "both")
    for name, weight in objective.finder.state_dict().items():
        assert torch.equal(model.finder.state_dict()[name], weight)
    now, goal = (look(seed) for seed in (0, 1))
    head, height = model.readings["object"], now.proprio[0, -1:, -4]
    state = model.perception(now)[:, -1]
    read, read_m = head.read(state, height), head.doubt(state, height)
    found, found_m = model.finder.find(now.frames[0, -1:, 6:], goal.frames[0, -1, 6:], height)
    wanted = (read / read_m**2 + found / found_m**2) / (1 / read_m**2 + 1 / found_m**2)
    alone = replace(model, finder=None)
    for eyes, place in ((model, wanted), (alone, read)):
        tracked = HandlingEyes(eyes, low=torch.zeros(3), high=torch.ones(3), widest_m=0.04)
        tracked.reset(goal)
        tracked.update(now, state)
        torch.testing.assert_close(tracked.now()[:, 3:6] - tracked.now()[:, :3], place)


def look(seed: int) -> Observation:
    """What three cameras and an open hand show of one world."""
    proprio = torch.zeros(1, 1, 14)
    proprio[..., -7:-3] = torch.tensor([0.04, 0.4, 0.1, 0.2])
    frames = tiny.frames(1, 1, channels=9, seed=seed)
    return Observation(frames=frames, cameras=("left", "right", "wrist"), proprio=proprio)


def test_an_object_is_smoothed_to_where_it_was_seen_and_moves_only_near_the_hand():
    hand = torch.tensor([[0.3, 0.0, 0.2]] * 4 + [[0.0, 0.0, 0.02]] * 2 + [[0.3, 0.0, 0.2]] * 4)
    thing = torch.tensor([[0.0, 0.0, 0.02]] * 5 + [[0.04, 0.0, 0.02]] * 5)
    noise = 0.01 * torch.randn(10, 3, generator=generator(0))
    doubts = torch.full((10,), 0.01)
    found, spread = smoothed(thing - hand + noise, doubts, hand)
    off = (found - (thing - hand)).norm(dim=1)
    assert off.mean() < 0.7 * noise.norm(dim=1).mean()
    assert (spread < 0.01).all() and spread[0] < spread[5]
    noise[2], doubts[2] = 1.0, 1.0  # one reading that is far off, and says so
    again, _ = smoothed(thing - hand + noise, doubts, hand)
    assert (again - found).abs().max() < 5e-3
