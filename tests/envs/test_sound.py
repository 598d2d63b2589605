"""Contact sound: what rings, what is labelled, and that nothing else changes."""

from __future__ import annotations

import time

import mujoco
import numpy as np
import pytest

from jepa_mpc.envs.materials import MATERIALS, Material, Ringing
from jepa_mpc.envs.push import PushEnv
from jepa_mpc.envs.sound import ContactSound

RATE, DT_S = 16000, 0.24
SCENE = """
<mujoco>
  <option timestep="0.004"/>
  <worldbody>
    <geom name="table" type="plane" size="2 2 0.1" friction="0.4"/>
    <body name="block" pos="0 0 {height}">
      <freejoint/>
      <geom name="block" type="box" size="0.03 0.03 0.03" mass="0.15" friction="0.4"/>
    </body>
  </worldbody>
</mujoco>
"""
NUMBERS = {name: 1 + index for index, name in enumerate(MATERIALS)}


def heard(*, height: float, speed: float = 0.0, material: str = "metal", steps: int = 4, noise: float = 0.0, size=1.0):
    """Sounds and labels of a block that is let go, or thrown along the table."""
    model = mujoco.MjModel.from_xml_string(SCENE.format(height=height))
    data = mujoco.MjData(model)
    data.qvel[0] = speed
    microphone = ContactSound(model, dt_s=DT_S, rate=RATE, noise=noise)
    things = {"block": MATERIALS[material].scaled(size), "table": MATERIALS["wood"]}
    microphone.begin(things, np.random.default_rng(0))
    sounds, labels = [], []
    for _ in range(steps):
        for _ in range(60):
            mujoco.mj_step(model, data)
            microphone(data)
        sounds.append(microphone.listen())
        labels.append(microphone.labels())
    return np.concatenate(sounds), np.stack(labels)


def test_a_blow_rings_the_modes_and_fades_as_they_say():
    metal = MATERIALS["metal"]
    blows = np.zeros(RATE)
    blows[0] = 1.0
    sound = Ringing(metal, rate=RATE)(blows)
    moments = np.arange(RATE) / RATE
    expected = sum(
        gain * np.exp(-moments / decay) * np.sin(2 * np.pi * hz * moments)
        for hz, decay, gain in zip(metal.frequencies_hz, metal.decays_s, metal.gains, strict=True)
    )
    assert np.allclose(sound, expected, atol=1e-9)


def test_what_rings_on_does_so_in_the_next_call():
    whole, parted = (Ringing(MATERIALS["glass"], rate=RATE) for _ in range(2))
    blows = np.random.default_rng(0).standard_normal(900)
    assert np.allclose(whole(blows), np.concatenate([parted(part) for part in np.split(blows, [100, 450])]))


def test_a_larger_thing_sounds_lower_and_modes_beyond_half_the_rate_are_left_out():
    large = MATERIALS["wood"].scaled(2.0)
    assert large.frequencies_hz[0] == MATERIALS["wood"].frequencies_hz[0] / 2
    assert not Ringing(MATERIALS["metal"], rate=1000)(np.ones(9)).any()


def test_a_fall_is_heard_and_labelled_when_it_lands():
    height = 0.03 + 0.2
    sound, labels = heard(height=height, steps=4)
    lands_s = np.sqrt(2 * 0.2 / 9.81)
    assert labels[0].tolist() == [
        1,
        pytest.approx(lands_s, abs=0.008),
        0,
        pytest.approx(labels[0, 3]),
        NUMBERS["metal"],
    ]
    assert np.abs(sound[: int((lands_s - 0.01) * RATE)]).max() == 0
    assert np.abs(sound[int(lands_s * RATE) : int((lands_s + 0.02) * RATE)]).max() > 0.05
    harder = heard(height=0.03 + 0.8, steps=4)[1]
    assert harder[:, 3].max() > 1.5 * labels[:, 3].max(), "the blow grows with the height"
    spectrum = np.abs(np.fft.rfft(sound[int(lands_s * RATE) :]))
    strongest = spectrum.argmax() * RATE / (len(sound) - int(lands_s * RATE))
    assert min(abs(strongest - hz) for hz in MATERIALS["metal"].frequencies_hz + MATERIALS["wood"].frequencies_hz) < 20


def loaded_slip_s(speed: float) -> float:
    """Time from the first load on a block that was thrown along the table until it rests."""
    model = mujoco.MjModel.from_xml_string(SCENE.format(height=0.03))
    data, wrench = mujoco.MjData(model), np.zeros(6)
    data.qvel[0] = speed
    slid = []
    for step in range(240):
        fast = np.hypot(*data.qvel[:2]) > 0.005
        mujoco.mj_step(model, data)
        load = 0.0
        for number in range(data.ncon):
            mujoco.mj_contactForce(model, data, number, wrench)
            load += wrench[0]
        slid += [step] if fast and load > 0.05 else []
    return float((slid[-1] - slid[0] + 1) * model.opt.timestep)


def test_slipping_is_heard_and_timed_until_the_block_rests():
    sound, labels = heard(height=0.03, speed=1.0, steps=4)
    assert float(labels[:, 2].sum()) == pytest.approx(loaded_slip_s(1.0), abs=0.009)  # two physics steps
    assert labels[0, 4] == NUMBERS["metal"]
    assert labels[:, 0].sum() == 0 and (labels[:, 1] == -1).all(), "what lies on the table does not strike it"
    assert np.abs(sound[:1600]).max() > 0.02 and labels[-1].tolist() == [0, -1, 0, 0, 0]


def test_a_block_at_rest_is_silent_but_for_the_microphone():
    sound, labels = heard(height=0.03)
    assert not sound.any() and not labels[:, [0, 2, 3, 4]].any()
    assert heard(height=0.03, noise=1e-3)[0].std() == pytest.approx(1e-3, rel=0.1)


def test_the_same_seed_gives_the_same_sound():
    first, second = (heard(height=0.03, speed=1.0, noise=1e-4)[0] for _ in range(2))
    assert np.array_equal(first, second) and first.dtype == np.float32


def test_pushes_are_heard_in_less_time_than_they_take():
    env = PushEnv(cameras=(), budget=99)
    env.reset(seed=1)
    motion, draws = env.motion(), np.random.default_rng(0)
    motion.start(env.arm.proprio(), draws)
    microphone = ContactSound(env.scene.model, dt_s=env.dt_s)
    microphone.begin({"block": MATERIALS["glass"], "table": MATERIALS["wood"]}, draws)
    quiet, spent, onsets, slips = env.state(), [], 0, 0.0
    env.arm.watchers.append(microphone)
    for _ in range(25):
        action, begun = motion(env.arm.proprio(), draws), time.process_time()
        env.step(action)
        sound = microphone.listen()
        spent.append(time.process_time() - begun)
        assert sound.shape == (3840,) and np.abs(sound).max() <= 1
        onsets, slips = onsets + microphone.labels()[0], slips + microphone.labels()[2]
    assert onsets >= 1 and slips > 0.1
    assert np.mean(spent) < env.dt_s / 2  # an eighth on a free core
    heard_state = env.state()
    env.arm.watchers.clear()
    env.set_state(quiet)
    assert heard_state.shape == quiet.shape


def test_a_microphone_changes_no_motion():
    states = []
    for watched in (False, True):
        env = PushEnv(cameras=(), budget=99)
        env.reset(seed=1)
        if watched:
            env.arm.watchers.append(ContactSound(env.scene.model, dt_s=env.dt_s))
        for _ in range(3):
            env.step(env.action_box.high.numpy())
        states.append(env.state())
    assert np.array_equal(*states)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda model: ContactSound(model, dt_s=DT_S, rate=11025), "11025 samples per second are not a whole number"),
        (
            lambda model: ContactSound(model, dt_s=DT_S).begin({"cup": MATERIALS["wood"]}, np.random.default_rng(0)),
            "neither a body nor a geom called 'cup'",
        ),
        (
            lambda model: Material(name="x", frequencies_hz=(1.0,), decays_s=(), gains=(1.0,), roughness=0.0),
            "x: need as many positive frequencies as decays and gains",
        ),
    ],
)
def test_what_cannot_sound_is_told_in_one_sentence(make, said):
    model = mujoco.MjModel.from_xml_string(SCENE.format(height=1))
    with pytest.raises(ValueError, match=said):
        make(model)
