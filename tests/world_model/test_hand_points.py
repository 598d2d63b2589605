"""Points that follow the hand, cameras learned on the way, and where the goal is by both."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_mpc.checkpoint import save_checkpoint
from jepa_mpc.encoders.hand_points import HandPoints, Sighting
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.keypoints import load_hand_points
from jepa_mpc.world_model.parts.augment import Augmentation, Tilt, ViewJitter
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective, another, unexplained
from jepa_mpc.world_model.perception.calibration import Belief, SenseSettings, calibrate, camera_rigs, head_rigs
from jepa_mpc.world_model.perception.goal_estimator import GoalEstimator
from jepa_mpc.world_model.recipes.hand_points import build
from tests import tiny

WIDTHS = (8, 8, 8, 8)
NEAR_M = 0.005
CAMERA = SenseSettings(sd=0.04)


def walk(count: int, seed: int = 0) -> Tensor:
    """Places `count 3` of a hand that wanders through a workspace (m)."""
    steps = 0.04 * torch.randn(count, 3, generator=generator(seed))
    return torch.tensor([0.5, 0.0, 0.3]) + steps.cumsum(0)


def seen_by(places: Tensor, *, azimuth_deg: float, elevation_deg: float = 35.0, size: float = 1.8) -> Tensor:
    """Where a distant camera shows the places `T 2`."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    right = torch.tensor([-math.sin(a), math.cos(a), 0.0])
    down = torch.tensor([math.sin(e) * math.cos(a), math.sin(e) * math.sin(a), -math.cos(e)])
    return size * (places - torch.tensor([0.5, 0.0, 0.3])) @ torch.stack([right, down]).T


def windows(seed: int = 0) -> dict[str, Tensor]:
    """Two windows of ten frames of two cameras, with actions."""
    draw = generator(seed)
    frames = torch.randint(0, 256, (2, 10, 6, 32, 32), generator=draw).byte()
    return {"frames": frames, "actions": 0.03 * torch.randn(2, 9, 7, generator=draw)}


def test_a_point_on_the_hand_is_explained_through_any_projective_camera() -> None:
    places = walk(12)
    depth = 1 / (1 + 0.5 * (places[:, :1] - 0.5))
    points = seen_by(places, azimuth_deg=70) * depth
    assert unexplained(points[None], places[None])[0] < 0.01


def test_a_point_that_knows_nothing_of_the_hand_stays_unexplained() -> None:
    points = torch.randn(30, 40, 2, generator=generator(1))
    assert unexplained(points, walk(40).expand(30, -1, -1)).mean() > 0.5


def test_the_loss_reaches_every_weight_that_makes_points() -> None:
    objective = build(widths=WIDTHS, points=2, sizes=(), generator=generator(0))
    loss = objective(windows(), generator(1))
    loss.total.backward()
    idle = [name for name, weight in objective.named_parameters() if weight.grad is None]
    assert torch.isfinite(loss.total) and not idle


def test_moves_begin_at_nothing_and_grow() -> None:
    objective = build(widths=WIDTHS, points=2, sizes=(), generator=generator(0))
    plain = torch.rand(1, 1, 2, 3, 32, 32, generator=generator(0))
    still, back = objective.moves.moved(plain, generator(1), strength=0.0)
    assert torch.allclose(back, torch.eye(2, 3).expand_as(back), atol=1e-6)
    assert torch.allclose(still, plain, atol=1e-5)


def test_the_strength_of_the_moves_follows_the_progress() -> None:
    objective = build(widths=WIDTHS, points=2, sizes=(), generator=generator(0))
    drawn, moved = [], objective.moves.moved
    objective.moves.moved = lambda views, draw, *, strength: (  # type: ignore[method-assign, assignment]
        drawn.append(strength),
        moved(views, draw, strength=strength),
    )[1]
    for progress in (0.0, 0.125, 0.25, 1.0):
        objective.after_step(progress)
        objective(windows(), generator(0))
    assert drawn == [0.0, 0.5, 1.0, 1.0]


def test_places_are_mapped_back_to_where_they_were() -> None:
    dark = torch.zeros(1, 1, 1, 3, 64, 64)
    dark[..., 20:23, 40:43] = 1
    moved, back = ViewJitter(shift=0.2, scale=1.3, turn_rad=0.2).moved(dark, generator(5))
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")[::-1])
    mass = moved[0, 0, 0, 0]
    centre = (mass * grid).sum((1, 2)) / mass.sum()
    here = (2 * centre + 1) / 64 - 1  # the middle of a pixel
    there = back[0, 0, :, :2] @ here + back[0, 0, :, 2]
    assert torch.allclose(there, (2 * torch.tensor([41.0, 21.0]) + 1) / 64 - 1, atol=0.02)


def test_a_tilt_that_would_fold_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="0.5"):
        Tilt(largest=0.6)


def test_short_windows_are_refused() -> None:
    batch = {name: value[:, :4] for name, value in windows().items()}
    with pytest.raises(ValueError, match="at least 8 frames"):
        build(widths=WIDTHS)(batch, generator(0))


def test_logs_of_smaller_pictures_than_the_training_wants_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size=64"):
        build(widths=WIDTHS, sizes=(32, 64))(windows(), generator(0))


def test_sizes_that_show_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels from 16"):
        build(widths=WIDTHS, sizes=(4, 64))


def test_a_ramp_that_is_no_share_is_refused() -> None:
    whole = build(widths=WIDTHS)
    with pytest.raises(ValueError, match="share"):
        HandPointsObjective(
            whole.encoder,
            bends=whole.bends,
            colours=whole.colours,
            moves=whole.moves,
            disturbs=whole.disturbs,
            ramp=0.0,
        )


def test_windows_are_brought_to_every_size_for_the_same_work() -> None:
    objective = build(widths=WIDTHS, points=2, sizes=(16, 32), generator=generator(0))
    batch = {name: value.repeat(4, *(value.dim() - 1) * [1]) for name, value in windows().items()}
    seen: set[tuple[int, int]] = set()
    objective.encoder.register_forward_pre_hook(lambda _, pictures: seen.add((len(pictures[0]), pictures[0].shape[-1])))
    for seed in range(8):
        objective(batch, generator(seed))
    assert seen == {(8 * 10 * 2, 16), (2 * 10 * 2, 32)}


def test_a_picture_and_its_companion_change_alike() -> None:
    objective = build(widths=WIDTHS, points=2, sizes=(), generator=generator(0))
    objective.disturbs = Augmentation([])
    objective.after_step(1.0)
    same = windows()["frames"][:, :1].repeat(1, 10, 1, 1, 1)  # nothing moves: a picture and its companion are the same
    pairs: list[tuple[Tensor, Tensor]] = []
    objective.encoder.register_forward_pre_hook(lambda _, given: pairs.append(given))
    objective({**windows(), "frames": same}, generator(0))
    views, others = pairs[0]
    assert torch.allclose(views, others, atol=1e-6) and not torch.allclose(views[0], views[2], atol=0.01)


def test_the_companion_is_another_picture_of_the_window() -> None:
    frames = torch.arange(3 * 10).view(3, 10, 1, 1, 1).expand(-1, -1, 3, 8, 8)
    other = another(frames, generator(0))
    assert not (other == frames).any()
    assert torch.equal(other.div(10, rounding_mode="floor"), frames.div(10, rounding_mode="floor"))


def pictures(count: int, seed: int) -> Tensor:
    """Raw frames of two cameras `count 6 64 64`."""
    return torch.randint(0, 256, (count, 6, 64, 64), generator=generator(seed)).byte()


def test_the_hand_is_looked_for_in_all_sizes() -> None:
    points = HandPoints(widths=WIDTHS, points=2).eval()
    one, both = (points.find(pictures(3, 0), pictures(3, 1), sizes=sizes) for sizes in ([32], [32, 64]))
    assert both.at.shape == (3, 2, 2) and both.spread.shape == (3, 2)
    assert not torch.equal(one.at, both.at)


def test_the_other_picture_matters() -> None:
    points = HandPoints(widths=WIDTHS, points=2).eval()
    one, two = (points.find(pictures(1, 0), pictures(1, seed), sizes=[64]) for seed in (1, 2))
    assert not torch.allclose(one.at, two.at)


@pytest.mark.parametrize(
    ("frames", "others"), [((1, 4, 32, 32), (1, 4, 32, 32)), ((1, 6, 32, 32), (2, 6, 32, 32))], ids=["half", "fewer"]
)
def test_frames_of_half_a_camera_or_without_companions_are_refused(
    frames: tuple[int, ...], others: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="3 V"):
        HandPoints(widths=WIDTHS).find(torch.zeros(frames), torch.zeros(others), sizes=[32])


def learned(readings: Tensor, places: Tensor) -> Belief:
    """What a left camera is thought to be like."""
    return calibrate(readings, torch.full((len(places),), CAMERA.sd**2), places, rigs=camera_rigs(1), settings=CAMERA)


@pytest.mark.parametrize("azimuth", [0.0, 45.0, 85.0, 100.0])
def test_a_strange_camera_is_learned_from_a_walk(azimuth: float) -> None:
    places = walk(16)
    camera = learned(seen_by(places, azimuth_deg=azimuth, size=2.5), places)
    ahead = places[-1] + torch.tensor([0.03, -0.04, 0.05])
    told = camera.reading + camera.map @ (ahead - camera.centre_m)
    assert torch.allclose(told, seen_by(ahead[None], azimuth_deg=azimuth, size=2.5)[0], atol=0.05)


def test_a_camera_is_not_known_before_the_hand_has_moved() -> None:
    still, moving = walk(1).expand(6, -1), walk(6)
    before, after = (learned(seen_by(places, azimuth_deg=45), places) for places in (still, moving))
    assert before.covariance.diagonal(dim1=-2, dim2=-1).sum() > 3 * after.covariance.diagonal(dim1=-2, dim2=-1).sum()


def test_pictures_that_are_late_fit_the_way_a_step_ago_better() -> None:
    places = walk(12)
    late = seen_by(torch.cat([places[:1], places[:-1]]), azimuth_deg=45)
    ago = torch.cat([places[:1], places[:-1]])
    assert learned(late, ago).log_evidence > learned(late, places).log_evidence + 3


@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
def test_what_a_head_makes_of_a_motion_is_learned(part: float) -> None:
    places, settings = walk(30), SenseSettings(sd=0.01, looseness=0.6)
    head = calibrate(part * places, torch.full((30,), 1e-4), places, rigs=head_rigs(), settings=settings)
    assert torch.allclose(head.map, part * torch.eye(3), atol=0.1)


def approach(azimuths: tuple[float, float], *, reads: float, steps: int = 20, late: int = 0) -> float:
    """Final distance (m) of a hand that follows a finder.

    Args:
        azimuths: Of the two cameras (degrees).
        reads: How much of the true displacement the head reads.
        steps: Commands.
        late: By how many steps all pictures are late.
    """
    hand, goal = torch.tensor([0.45, -0.15, 0.2]), torch.tensor([0.55, 0.1, 0.35])
    surely = torch.zeros(1, 2)

    def look(place: Tensor) -> Sighting:
        points = [seen_by(place[None], azimuth_deg=azimuth)[0] for azimuth in azimuths]
        return Sighting(at=torch.stack(points)[None], spread=surely)

    finder, way = GoalEstimator(cameras=["left", "right"]), [hand]
    for _ in range(steps):
        shown = way[max(0, len(way) - 1 - late)]
        ahead = finder(look(shown), look(goal), place_m=hand, read_m=reads * shown, goal_read_m=reads * goal)
        hand = hand + 0.5 * ahead * min(1.0, 0.1 / float(ahead.norm()))
        way.append(hand)
    return float((goal - hand).norm())


def test_cameras_that_stand_elsewhere_lead_to_the_goal() -> None:
    assert approach((80.0, -10.0), reads=1.0) < NEAR_M


def test_late_pictures_lead_there_too() -> None:
    assert approach((80.0, -10.0), reads=1.0, late=1, steps=10) < NEAR_M  # 4 cm where lateness is not thought of


@pytest.mark.parametrize("reads", [0.0, -0.3])
def test_a_head_that_reads_nothing_or_the_reverse_is_overruled(reads: float) -> None:
    assert approach((20.0, -70.0), reads=reads) < 0.02


def test_points_of_another_number_of_cameras_are_refused() -> None:
    two = Sighting(at=torch.zeros(1, 2, 2), spread=torch.zeros(1, 2))
    nowhere = torch.zeros(3)
    with pytest.raises(ValueError, match="1 cameras"):
        GoalEstimator(cameras=["left"])(two, two, place_m=nowhere, read_m=nowhere, goal_read_m=nowhere)


def test_points_are_read_back_from_a_checkpoint(tmp_path: Path) -> None:
    objective = build(widths=WIDTHS, points=2, generator=generator(3))
    system = {"_target_": "hand_points", "widths": list(WIDTHS), "points": 2}
    save_checkpoint(tmp_path / "points", objective.state_dict(), {"system": system})
    both = pictures(1, 0), pictures(1, 1)
    read = load_hand_points(tmp_path / "points")
    assert torch.equal(read.find(*both, sizes=[32]).at, objective.encoder.find(*both, sizes=[32]).at)


def test_another_systems_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="not a system that detects hand keypoints"):
        load_hand_points(tiny.save(tmp_path / "world"))
