"""Points that follow the hand, cameras learned on the way, and where the goal is by both."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.checkpoint import save_checkpoint
from core.errors import BadCheckpoint
from core.seeding import generator
from encoders.hand_points import HandPoints, Sighting
from tests import tiny
from world_model.augment import Tilt, ViewJitter
from world_model.calibration import CalibrationSettings, calibrate
from world_model.goal_finder import GoalFinder, load_hand_points
from world_model.objectives.points import HandPointsObjective, unexplained
from world_model.recipes.hand_points import build

WIDTHS = (8, 8, 8, 8)
NEAR_M = 0.005


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
    objective = build(widths=WIDTHS, points=2, generator=generator(0))
    loss = objective(windows(), generator(1))
    loss.total.backward()
    idle = [name for name, weight in objective.named_parameters() if weight.grad is None]
    assert torch.isfinite(loss.total) and not idle


def test_moves_begin_at_nothing_and_grow() -> None:
    objective = build(widths=WIDTHS, points=2, generator=generator(0))
    plain = torch.rand(1, 1, 2, 3, 32, 32, generator=generator(0))
    still, back = objective.moves.moved(plain, generator(1), strength=0.0)
    assert torch.allclose(back, torch.eye(2, 3).expand_as(back), atol=1e-6)
    assert torch.allclose(still, plain, atol=1e-5)


def test_the_strength_of_the_moves_follows_the_progress() -> None:
    objective = build(widths=WIDTHS, points=2, generator=generator(0))
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


def test_a_ramp_that_is_no_share_is_refused() -> None:
    whole = build(widths=WIDTHS)
    with pytest.raises(ValueError, match="share"):
        HandPointsObjective(whole.encoder, colours=whole.colours, moves=whole.moves, disturbs=whole.disturbs, ramp=0.0)


def test_the_hand_is_looked_for_in_all_sizes() -> None:
    points = HandPoints(widths=WIDTHS, points=2).eval()
    frames = torch.randint(0, 256, (3, 6, 64, 64), generator=generator(0)).byte()
    one, both = points.find(frames, sizes=[32]), points.find(frames, sizes=[32, 64])
    assert both.at.shape == (3, 2, 2) and both.spread.shape == (3, 2)
    assert not torch.equal(one.at, both.at)


def test_frames_of_half_a_camera_are_refused() -> None:
    with pytest.raises(ValueError, match="3 V"):
        HandPoints(widths=WIDTHS).find(torch.zeros(1, 4, 32, 32), sizes=[32])


@pytest.mark.parametrize("azimuth", [0.0, 45.0, 85.0, 100.0])
def test_a_strange_camera_is_learned_from_a_walk(azimuth: float) -> None:
    places = walk(16)
    points = seen_by(places, azimuth_deg=azimuth, size=2.5)
    camera = calibrate(points, torch.full((16,), 0.0016), places, side=1, settings=CalibrationSettings())
    ahead = places[-1] + torch.tensor([0.03, -0.04, 0.05])
    told = camera.point + camera.map @ (ahead - camera.centre_m)
    assert torch.allclose(told, seen_by(ahead[None], azimuth_deg=azimuth, size=2.5)[0], atol=0.05)


def test_a_camera_is_not_known_before_the_hand_has_moved() -> None:
    still = walk(1).expand(6, -1)
    points = seen_by(still, azimuth_deg=45)
    settings = CalibrationSettings()
    before = calibrate(points, torch.full((6,), 0.0016), still, side=1, settings=settings)
    moving = walk(6)
    after = calibrate(seen_by(moving, azimuth_deg=45), torch.full((6,), 0.0016), moving, side=1, settings=settings)
    assert before.covariance.diagonal(dim1=-2, dim2=-1).sum() > 3 * after.covariance.diagonal(dim1=-2, dim2=-1).sum()


def approach(azimuths: tuple[float, float], *, reads: float, steps: int = 20) -> float:
    """Final distance (m) of a hand that follows a finder whose head reads `reads` times the true displacement."""
    hand, goal = torch.tensor([0.45, -0.15, 0.2]), torch.tensor([0.55, 0.1, 0.35])
    look = lambda place: torch.stack([seen_by(place[None], azimuth_deg=a)[0] for a in azimuths])  # noqa: E731
    finder = GoalFinder(Sighting(at=look(goal)[None], spread=torch.zeros(1, 2)), sides=[1, -1])
    for _ in range(steps):
        seen = Sighting(at=look(hand)[None], spread=torch.zeros(1, 2))
        way = finder(seen, place_m=hand, reading_m=reads * (goal - hand))
        hand = hand + 0.5 * way * min(1.0, 0.1 / float(way.norm()))
    return float((goal - hand).norm())


def test_cameras_that_stand_elsewhere_lead_to_the_goal() -> None:
    assert approach((80.0, -10.0), reads=1.0) < NEAR_M


@pytest.mark.parametrize("reads", [0.0, -0.3])
def test_a_head_that_reads_nothing_or_the_reverse_is_overruled(reads: float) -> None:
    assert approach((20.0, -70.0), reads=reads) < 0.02


def test_a_finder_for_another_number_of_cameras_is_refused() -> None:
    with pytest.raises(ValueError, match="cameras"):
        GoalFinder(Sighting(at=torch.zeros(1, 1, 2), spread=torch.zeros(1, 1)), sides=[1, -1])


def test_points_are_read_back_from_a_checkpoint(tmp_path: Path) -> None:
    objective = build(widths=WIDTHS, points=2, generator=generator(3))
    system = {"_target_": "world_model.recipes.hand_points.build", "widths": list(WIDTHS), "points": 2}
    save_checkpoint(tmp_path / "points", objective.state_dict(), {"system": system})
    frames = torch.randint(0, 256, (1, 6, 32, 32), generator=generator(0)).byte()
    read = load_hand_points(tmp_path / "points")
    assert torch.equal(read.find(frames, sizes=[32]).at, objective.encoder.find(frames, sizes=[32]).at)


def test_another_systems_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="not points of the hand"):
        load_hand_points(tiny.save(tmp_path / "world"))
