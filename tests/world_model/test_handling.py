"""The world model of handling: two tokens, heads that learn in hindsight, and what its eyes make of them."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.encoders.hand_eye import HandEyeEncoder
from jepa_mpc.encoders.remembered import Remembered
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.face.training.pretrained import begin_with_encoder
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context, Observation, Rollout
from jepa_mpc.world_model.agents.handling_eyes import MOVED_M, HandlingEyes, Track
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.dynamics.read_out import PUSHED_M, ReadOutDynamics, StillLatents, followed
from jepa_mpc.world_model.parts.augment import OfCameras
from jepa_mpc.world_model.parts.readouts import HindsightReading, PlaceReading
from tests import tiny

LOW, HIGH = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, 0.3])


def encoder(cameras: int) -> KeypointEncoder:
    return KeypointEncoder(num_cameras=cameras, width=16, widths=(8, 8, 8, 8), keypoints=4, hidden=8)


def batch(worlds: int = 2, times: int = 4):
    stream = generator(0, "handling batch")
    return {
        "frames": tiny.frames(worlds, times, channels=9),
        "actions": 0.02 * torch.randn(worlds, times - 1, 5, generator=stream),
        "proprio": torch.rand(worlds, times, 14, generator=stream),
        "object_felt": 0.1 * torch.randn(worlds, times, 3, generator=stream),
        "observation.gripper_command": 0.04 * torch.rand(worlds, times, 1, generator=stream),
        "held_felt": torch.randint(2, (worlds, times, 1), generator=stream).float(),
    }


def test_what_the_wrist_sees_is_in_a_token_of_its_own():
    eyes = HandEyeEncoder(scene=encoder(2), wrist=encoder(1))
    pictures = torch.rand(2, 9, 32, 32)
    other = pictures.clone()
    other[:, 6:] = torch.rand(2, 3, 32, 32)
    seen, changed = eyes(pictures), eyes(other)
    assert seen.shape == (2, 2, 16)
    assert torch.equal(seen[:, 0], changed[:, 0]) and not torch.equal(seen[:, 1], changed[:, 1])


def test_a_frozen_eye_looks_at_each_picture_once():
    looked = []
    eye = encoder(2)
    eye.register_forward_hook(lambda part, given, tokens: looked.append(len(tokens)))
    remembered = Remembered(eye).train()
    pictures = torch.rand(3, 6, 32, 32)
    first, again = remembered(pictures), remembered(pictures.flip(0))
    assert looked == [3] and torch.equal(first, again.flip(0))
    remembered.eval()(pictures)
    assert looked == [3, 3]
    assert not any(weight.requires_grad for weight in remembered.parameters())


def test_a_change_of_some_cameras_leaves_the_others():
    views = torch.rand(1, 2, 3, 3, 4, 4)
    changed = OfCameras([2], lambda some, stream: 1 - some)(views, generator(0))
    assert torch.equal(changed[:, :, :2], views[:, :, :2]) and torch.equal(changed[:, :, 2], 1 - views[:, :, 2])


def test_unknown_labels_count_for_nothing():
    head = HindsightReading("object_felt", width=32, axes=3)
    latents = torch.randn(2, 4, 2, 16, generator=generator(0))
    known = batch()
    whole = head(latents, known)
    known["object_felt"][1] = torch.nan
    half = head(latents[:1], {"object_felt": known["object_felt"][:1]})
    assert torch.allclose(head(latents, known), half) and not torch.allclose(whole, half)
    known["object_felt"][:] = torch.nan
    assert head(latents, known) == 0
    with pytest.raises(ValueError, match="object_felt"):
        head(latents, {})


def resting(places, moved, held):
    """The loss of readings `3` per frame, no labels, a hand that moved along x."""
    head = PlaceReading("felt", width=3, held="held")
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(3) / head.unit), head.linear.bias.zero_()
    read = torch.tensor(places)[None, :, None]
    batch = {
        "felt": torch.full((1, len(places), 3), torch.nan),
        "held": torch.tensor(held)[None, :, None],
        "actions": torch.tensor([[[step, 0.0, 0.0, 0.04, 0.04] for step in moved]]),
    }
    with torch.no_grad():
        return float(head(read, batch))


def test_what_the_hand_is_away_from_must_be_read_to_rest():
    there, gone, nan = [0.15, 0.0, 0.0], [0.10, 0.0, 0.0], float("nan")
    assert resting([there, gone], [0.05], [0.0, nan]) == pytest.approx(0.0, abs=1e-9)
    far = resting([there, there], [0.05], [0.0, nan])
    near = [0.01, 0.0, 0.0]
    assert far > 0.1 and resting([near, near], [0.05], [0.0, 0.0]) < 0.01 * far  # may be pushed


def test_what_is_held_must_be_read_to_stay_in_the_hand():
    in_hand = [[0.01, 0.0, 0.0], [0.01, 0.0, 0.0]]
    assert resting(in_hand, [0.05], [1.0, 1.0]) == 0.0
    assert resting([in_hand[0], [-0.04, 0.0, 0.0]], [0.05], [1.0, 1.0]) > 0.1
    assert resting([[0.15, 0.0, 0.0], [0.10, 0.0, 0.0]], [0.05], [1.0, 1.0]) > 0.1


def test_a_place_reading_names_the_column_that_is_missing():
    head = PlaceReading("felt", width=3, held="held")
    with pytest.raises(ValueError, match="'held'"):
        head(torch.zeros(1, 2, 1, 3), {"felt": torch.zeros(1, 2, 3), "actions": torch.zeros(1, 1, 5)})


def test_a_reading_in_metres_is_learned():
    head = HindsightReading("object_felt", width=32, axes=3)
    latents = torch.randn(8, 4, 2, 16, generator=generator(0))
    labels = {"object_felt": 0.05 * latents[..., 0, :3]}
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        head(latents, labels).backward()
        optimiser.step()
    assert (head.read(latents) - labels["object_felt"]).norm(dim=-1).median() < 0.01


def test_a_direction_and_the_height_of_the_hand_give_a_place():
    head = PlaceReading("felt", width=8, held="held", rest=0.0, height=-4)
    with pytest.raises(ValueError, match="height of the hand"):
        head.read(torch.zeros(1, 1, 8))
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for number in range(400):
        optimiser.zero_grad()
        head(*rays(number)).backward()
        optimiser.step()
    latents, labels = rays(1000)
    off = (head.read(latents, labels["proprio"][..., -4]) - labels["felt"]).norm(dim=-1)
    higher = head.read(latents, labels["proprio"][..., -4] + 0.1)
    assert off.median() < 0.005
    assert (higher[..., 2] - labels["felt"][..., 2] + 0.1).abs().median() < 0.01  # so much farther below
    with pytest.raises(ValueError, match="proprioception"):
        head(latents, {name: rows for name, rows in labels.items() if name != "proprio"})


def rays(number: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Latents that hold directions, and what lies there on the table below a hand at some height."""
    stream = generator(number, "rays")
    latents = torch.randn(32, 2, 1, 8, generator=stream)
    proprio = 0.05 + 0.25 * torch.rand(32, 2, 14, generator=stream)
    height = proprio[..., -4, None]
    felt = torch.cat([0.5 * height * latents[..., 0, :2], -height], dim=-1)
    return latents, {
        "felt": felt, "proprio": proprio, "held": torch.zeros(32, 2, 1), "actions": torch.zeros(32, 1, 5)
    }  # fmt: skip


def test_heads_are_trained_on_seen_and_on_predicted_latents():
    objective = tiny.handling()
    terms = objective(batch(), generator(0)).terms
    assert {"object", "object_foreseen", "grip", "grip_foreseen", "displacement", "prediction"} <= terms.keys()


def test_the_eyes_on_the_scene_begin_with_an_earlier_encoder(tmp_path):
    earlier, begun = tiny.save(tmp_path / "reach", seed=1), tiny.handling()
    begin_with_encoder(begun, str(earlier))
    wanted = tiny.objective(1)
    for name, weight in wanted.encoder.state_dict().items():
        assert torch.equal(begun.encoder.scene.encoder.state_dict()[name], weight)
    assert torch.equal(begun.parts["displacement"].linear.weight, wanted.parts["displacement"].linear.weight)


class Carrying:
    """A world in which the latent's first number grows with every closed step."""

    def rollout(self, context: Context, plans: torch.Tensor) -> Rollout:
        self.actions = plans
        latents = plans[..., :1, None].cumsum(2).expand(*plans.shape[:3], 2, 16)
        return Rollout(latents=latents)


def test_plans_become_motion_and_openings_within_the_workspace():
    world = Carrying()
    dynamics = ReadOutDynamics(
        world,
        lambda latents, height: latents[..., 0, :3],
        lambda latents, height: torch.ones(latents.shape[:-2]),
        lambda latents: torch.ones(*latents.shape[:-2], 1),
        low=LOW,
        high=HIGH,
        widest_m=0.04,
    )
    known = torch.tensor([[[0.5, 0.0, 0.02, 0.9, 0.9, 0.0, 0.04]]])  # hand, object, told opening
    context = Context(latents=torch.zeros(1, 1, 2, 16), actions=torch.zeros(1, 0, 5), proprio=known)
    plans = torch.zeros(1, 1, 2, 7)
    plans[0, 0, :, 2] = -0.05
    plans[0, 0, 0, 6] = 1.0
    sensors = dynamics.rollout(context, plans).sensors[0, 0]
    assert torch.allclose(sensors[:, 2], torch.tensor([0.0, 0.0]))  # not through the table
    assert torch.allclose(sensors[:, 9], torch.tensor([0.0, 0.0]))
    assert torch.allclose(sensors[:, 3:6], known[0, :, 3:6].expand(2, 3))  # out of reach, it stays
    assert torch.allclose(world.actions[0, 0, :, 2:], torch.tensor([[-0.02, 0.04, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="proprio"):
        dynamics.rollout(Context(latents=context.latents, actions=context.actions), plans)


def test_an_error_of_the_present_reading_moves_nothing():
    off = torch.tensor([0.02, 0.0, 0.0])  # what the object is read too far along x, now and in every prediction
    still = ReadOutDynamics(
        StillLatents(),
        lambda latents, height: off.expand(*latents.shape[:-2], 3),
        lambda latents, height: torch.zeros(latents.shape[:-2]),
        lambda latents: torch.zeros(*latents.shape[:-2], 1),
        low=LOW,
        high=HIGH,
        widest_m=0.04,
    )
    known = torch.tensor([[[0.5, 0.0, 0.1, 0.5, 0.0, 0.1, 0.04]]])  # the object is at the hand
    context = Context(latents=torch.zeros(1, 1, 2, 16), actions=torch.zeros(1, 0, 5), proprio=known)
    sensors = still.rollout(context, torch.zeros(1, 1, 2, 7)).sensors
    assert torch.allclose(sensors[..., 3:6], known[..., 3:6].expand(1, 1, 2, 3))


def test_without_a_predictor_latents_stay_and_heads_read_them_still():
    latents = torch.arange(64.0).reshape(2, 1, 2, 16)
    context = Context(latents=latents, actions=torch.zeros(2, 0, 5), proprio=torch.zeros(2, 1, 7))
    plans = torch.zeros(2, 3, 4, 7)
    still = StillLatents().rollout(context, plans).latents
    assert still.shape == (2, 3, 4, 2, 16) and torch.equal(still[:, 2, 3], latents[:, -1])
    heads = (
        lambda z, height: z[..., 0, :3],
        lambda z, height: torch.zeros(z.shape[:-2]),
        lambda z: torch.ones(*z.shape[:-2], 1),
    )
    dynamics = ReadOutDynamics(Carrying(), *heads, low=LOW, high=HIGH, widest_m=0.04).over(StillLatents())
    assert torch.equal(dynamics.rollout(context, plans).latents, still)


def test_only_what_the_hand_is_near_and_holds_goes_where_it_is_read_to_be():
    hand = torch.tensor([[0.0, 0.0, 0.0], [0.05, 0.0, 0.0], [0.1, 0.0, 0.0]])[None, None]
    at_hand, away = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.3, 0.0]]])
    held, empty, unsure = torch.ones(1, 1, 2), torch.zeros(1, 1, 2), torch.full((1, 1, 2), 1e6)
    assert torch.allclose(followed(at_hand, hand[:, :, 1:], hand, held, unsure), hand[:, :, 1:])
    stays = at_hand[:, :, None].expand(1, 1, 2, 3)
    assert torch.allclose(followed(at_hand, hand[:, :, 1:], hand, empty, unsure), stays, atol=1e-6)
    stays = away[:, :, None].expand(1, 1, 2, 3)
    assert torch.allclose(followed(away, hand[:, :, 1:], hand, held, unsure), stays, atol=1e-6)


def test_what_the_hand_only_touches_goes_as_far_as_the_reading_is_sure():
    hand, start = torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 3)
    read, empty = torch.tensor([[[[0.02, 0.0, 0.0]]]]), torch.zeros(1, 1, 1)
    ways = [
        float(followed(start, read, hand, empty, torch.full((1, 1, 1), doubt))[..., 0])
        for doubt in (0.0, PUSHED_M, 1.0)
    ]
    assert ways == pytest.approx([0.02, 0.01, 0.0], abs=1e-4)
    far = followed(start + 0.3, read, hand, empty, torch.full((1, 1, 1), 0.02))
    assert torch.allclose(far, start[:, :, None] + 0.3)


def test_a_prediction_without_a_label_must_read_what_the_frame_reads():
    reading = HindsightReading("felt", width=4, axes=1, unit=1.0, bend=1.0, trusted=10.0)
    with torch.no_grad():
        reading.linear.weight.fill_(1.0), reading.log_scale.weight.zero_()
    seen, predicted = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, requires_grad=True)
    batch = {"felt": torch.full((1, 2, 1), float("nan"))}
    assert float(reading(predicted, batch).detach()) == 0.0
    apart = reading(predicted, batch, seen=seen)
    with torch.no_grad():
        together = reading(seen, batch, seen=seen)
    assert float(apart.detach()) > float(together)
    apart.backward()
    assert predicted.grad is not None and predicted.grad.abs().sum() > 0
    doubtful = HindsightReading("felt", width=4, axes=1, unit=1.0, trusted=1e-6)
    assert float(doubtful(predicted, batch, seen=seen)) == 0.0  # a frame that is not sure teaches nothing


def test_a_place_is_the_mean_of_its_readings_weighted_by_their_precision():
    track = Track()
    for place, doubt_m in ((1.0, 0.03), (0.0, 0.01)):
        track.add(torch.tensor([[0.0, 0.0, place]]), doubt_m)
    assert track.place[0, 2] == pytest.approx(0.1, abs=1e-3)
    assert track.variance == pytest.approx(0.9e-4, rel=1e-3)


def test_what_the_hand_is_near_may_have_moved_and_all_else_stays_where_it_was_seen():
    track = Track()
    track.add(torch.zeros(1, 3), 0.002)
    track.stir(0.3)
    track.add(torch.tensor([[0.0, 0.0, 0.1]]), 0.1)  # out of view, and the head knows
    assert track.place[0, 2] < 1e-3
    track.stir(0.0)
    assert track.variance > 0.99 * MOVED_M**2
    track.add(torch.tensor([[0.0, 0.0, 0.1]]), 0.002)
    assert track.place[0, 2] > 0.099


def test_a_head_learns_how_far_off_it_is():
    head = HindsightReading("object_felt", width=32, axes=3)
    stream = generator(0)
    latents, noise = torch.randn(64, 4, 2, 16, generator=stream), torch.randn(64, 4, 3, generator=stream)
    blind = latents[..., 1, 0] > 0
    latents[..., 1, 1] = blind.float()
    labels = {"object_felt": torch.where(blind[..., None], 0.1 * noise, 0.0 * noise)}
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        head(latents, labels).backward()
        optimiser.step()
    doubts = head.doubt(latents)
    assert doubts[~blind].median() < 0.03 and 0.1 < doubts[blind].median() < 0.25


def test_the_goal_is_where_the_steps_read_it(tmp_path):
    model = load_world_model(tiny.save_handling(tmp_path / "handling"))
    eyes = HandlingEyes(model, low=LOW, high=HIGH, widest_m=0.04)
    frames = tiny.frames(1, 1, channels=9)
    proprio = torch.zeros(1, 1, 14)
    proprio[..., -7:-3] = torch.tensor([0.03, 0.4, 0.1, 0.2])
    now = Observation(frames=frames, cameras=("left", "right", "wrist"), proprio=proprio)
    eyes.reset(now)
    goal = eyes.update(now, model.perception(now)[:, -1]).sensors
    seen = eyes.now()
    assert seen.shape == goal.shape == (1, 10)
    assert torch.allclose(seen[:, :3], goal[:, :3]) and torch.allclose(seen[0, :3], torch.tensor([0.4, 0.1, 0.2]))
    assert torch.isclose(seen[0, 9], torch.tensor(0.03))
    context = Context(latents=model.perception(now), actions=torch.zeros(1, 0, 7), proprio=eyes.known(now)[:, None])
    assert eyes.dynamics.rollout(context, torch.zeros(1, 2, 3, 7)).sensors.shape == (1, 2, 3, 10)
    for share, opening in ((0.5, 0.01), (1.0, 0.0), (-1.0, 0.04)):
        eyes.did(torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, share]]))
        assert torch.isclose(eyes.known(now)[0, 6], torch.tensor(opening), atol=1e-6)


def test_another_goal_image_leaves_the_object_where_it_was_seen(tmp_path):
    model = load_world_model(tiny.save_handling(tmp_path / "handling"))
    eyes = HandlingEyes(model, low=LOW, high=HIGH, widest_m=0.04)
    now = Observation(
        frames=tiny.frames(1, 1, channels=9), cameras=("left", "right", "wrist"), proprio=torch.ones(1, 1, 14)
    )
    eyes.reset(now)
    eyes.update(now, model.perception(now)[:, -1])
    tracked = eyes.known(now)
    eyes.aim(now)
    assert torch.equal(eyes.known(now), tracked)


def test_what_handling_cannot_see_is_told(tmp_path):
    model = load_world_model(tiny.save_handling(tmp_path / "handling"))
    eyes = HandlingEyes(model, low=LOW, high=HIGH, widest_m=0.04)
    two = Observation(frames=tiny.frames(2, 1, channels=9), cameras=("left", "right", "wrist"))
    with pytest.raises(BadObservation, match="one world"):
        eyes.reset(two)
    one = Observation(frames=two.frames[:1], cameras=two.cameras)
    eyes.reset(one)
    with pytest.raises(BadObservation, match="proprioception"):
        eyes.update(one, model.perception(one)[:, -1])


def test_eyes_need_a_model_that_learned_to_handle(tmp_path):
    with pytest.raises(BadCheckpoint, match="object"):
        HandlingEyes(load_world_model(tiny.save(tmp_path / "reach")), low=LOW, high=HIGH, widest_m=0.04)
