"""Contact sound from MuJoCo's contact forces: the signal of a microphone at the table, and its labels.

A new touch and every rise of its normal force is an impulse; slipping under load is noise. Both excite the modes of the
touching objects (`envs.materials`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import mujoco
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jepa_mpc.envs.materials import MATERIALS, Material, Ringing

Pair = tuple[int, int]
NO_ONSET = -1.0
QUIET_S = 0.04
"""A touch is new after this time without contact; a slip continues over shorter gaps."""
SETTLE_S = 0.1
"""Objects that touch within this time after the start were in contact before."""
STRIKE_S = 0.02
"""Rises of the force within this time after a touch belong to the impact."""
LEAST_N = 0.05
LEAST_RISE_N = 0.2
LEAST_SLIP_M_S = 0.005


@dataclass(kw_only=True)
class Strike:
    """A new touch: time (s since the previous observation), impulse (N s), and object (an index of `things`)."""

    at_s: float
    blow: float
    thing: int


@dataclass(frozen=True, kw_only=True)
class Touch:
    """Contact of two objects at one moment: normal force (N) and slipping speed (m/s)."""

    force: float
    slip: float


class ContactSound:
    """A microphone: call it after every physics step, `listen` after every control step.

    Args:
        model: The model.
        dt_s: Seconds of a control step.
        rate: Samples per second.
        noise: Standard deviation of the microphone's noise, where 1 is full scale.

    Raises:
        ValueError: If a control step or a physics step is not a whole number of samples.
    """

    _begun: int
    _slipped: NDArray[np.float64]

    def __init__(self, model: mujoco.MjModel, *, dt_s: float, rate: int = 16000, noise: float = 1e-4) -> None:
        self.model, self.rate, self.noise = model, rate, noise
        self.samples, self._per = round(rate * dt_s), round(rate * model.opt.timestep)
        if not np.isclose([rate * dt_s, rate * model.opt.timestep], [self.samples, self._per], atol=1e-6).all():
            raise ValueError(
                f"{rate} samples per second are not a whole number in {model.opt.timestep} s: choose another rate"
            )
        self.begin({}, np.random.default_rng(0))

    def begin(self, things: Mapping[str, Material], generator: Generator) -> None:
        """Begin an episode in silence.

        Args:
            things: Sounding objects: names of bodies or geoms, and their materials. Of two that touch, labels refer to
                the earlier one.
            generator: Source of the microphone's noise and the noise of slipping.

        Raises:
            ValueError: If the model has neither a body nor a geom of a name.
        """
        self.things, self.generator = dict(things), generator
        self._thing = {geom: at for at, name in reversed(list(enumerate(things))) for geom in self._geoms(name)}
        self._ringing = [Ringing(material, rate=self.rate) for material in things.values()]
        self._forces: dict[Pair, float] = {}
        self._touched: dict[Pair, int] = {}
        self._slid: dict[int, int] = {}
        self._step = 0
        self._labels = np.zeros(5, dtype=np.float32)
        self._clear()

    def __call__(self, data: mujoco.MjData) -> None:
        """Process one physics step."""
        dt_s, at = self.model.opt.timestep, self._begun * self._per
        now = self._touches(data)
        slipping = {self._first(pair) for pair, touch in now.items() if touch.slip > LEAST_SLIP_M_S}
        for thing in slipping:
            gap = self._step - self._slid.get(thing, self._step - 1)
            bridged = gap if gap * dt_s <= QUIET_S else 1  # slipping objects chatter: they briefly leave the table
            self._slipped[thing] += min(bridged, self._begun + 1) * dt_s
            self._slid[thing] = self._step
        for pair, touch in now.items():
            rise = max(touch.force - self._forces.get(pair, 0.0), 0.0)
            settling = self._step * dt_s < SETTLE_S and all(geom in self._thing for geom in pair)
            if not settling and self._step * dt_s > QUIET_S:
                self._strike(pair, rise, at)
            if touch.slip > LEAST_SLIP_M_S:
                self._rub(pair, touch, at)
            self._touched[pair] = self._step
        self._forces = {pair: touch.force for pair, touch in now.items()}
        self._step, self._begun = self._step + 1, self._begun + 1

    def listen(self) -> Annotated[NDArray[np.float32], "G"]:
        """The sound since the last call, with a fixed number of samples; silence if nothing was simulated."""
        sound = self.noise * self.generator.standard_normal(self.samples)
        for ringing, blows in zip(self._ringing, self._blows, strict=True):
            sound += ringing(blows)
        self._labels = self._tell()
        self._clear()
        return np.clip(sound, -1.0, 1.0).astype(np.float32)

    def labels(self) -> Annotated[NDArray[np.float32], "5"]:
        """Labels of the sound of the last `listen`.

        Returns:
            Number of new touches; time of the first since the previous observation, s (-1 without); duration of
            slipping, s; the largest impulse, N s; and the index of the material of the first struck object, else of the
            longest slipping one, counted from 1 in the order of `MATERIALS` (0 for none).
        """
        return self._labels

    def _strike(self, pair: Pair, rise: float, at: int) -> None:
        dt_s = self.model.opt.timestep
        last = self._touched.get(pair)
        if last is None or (self._step - last) * dt_s > QUIET_S:
            self._open[pair] = Strike(at_s=at / self.rate, blow=0.0, thing=self._first(pair))
            self._strikes.append(self._open[pair])
        elif rise < LEAST_RISE_N:
            return
        strike = self._open.get(pair)
        if strike is not None and at / self.rate - strike.at_s <= STRIKE_S:
            strike.blow += rise * dt_s
        for thing in self._sounding(pair):
            self._blows[thing, min(at, self.samples - 1)] += rise * dt_s

    def _rub(self, pair: Pair, touch: Touch, at: int) -> None:
        grain = touch.force * touch.slip / np.sqrt(self.rate) * self.generator.standard_normal(self._per)
        for thing in self._sounding(pair):
            room = self._blows[thing, at : at + self._per]
            room += list(self.things.values())[thing].roughness * grain[: len(room)]

    def _touches(self, data: mujoco.MjData) -> dict[Pair, Touch]:
        """Contacts of the sounding objects with each other and anything else."""
        found: dict[Pair, Touch] = {}
        wrench = np.zeros(6)
        for number in range(data.ncon):
            contact = data.contact[number]
            pair = (int(contact.geom1), int(contact.geom2))
            if not any(geom in self._thing for geom in pair):
                continue
            mujoco.mj_contactForce(self.model, data, number, wrench)
            before = found.get(pair, Touch(force=0.0, slip=0.0))
            slip = max(before.slip, self._slip(data, contact) if wrench[0] > LEAST_N else 0.0)
            found[pair] = Touch(force=before.force + float(wrench[0]), slip=slip)
        return {pair: touch for pair, touch in found.items() if touch.force > LEAST_N}

    def _slip(self, data: mujoco.MjData, contact: Any) -> float:
        """Relative tangential speed of the two surfaces, m/s."""
        apart = self._speed(data, contact.geom2, contact.pos) - self._speed(data, contact.geom1, contact.pos)
        along = contact.frame.reshape(3, 3)[1:]
        return float(np.linalg.norm(along @ apart))

    def _speed(self, data: mujoco.MjData, geom: int, point: NDArray[np.float64]) -> NDArray[np.float64]:
        motion = np.zeros(6)
        mujoco.mj_objectVelocity(self.model, data, mujoco.mjtObj.mjOBJ_GEOM, geom, motion, 0)
        return motion[3:] + np.cross(motion[:3], point - data.geom_xpos[geom])

    def _sounding(self, pair: Pair) -> list[int]:
        return sorted({self._thing[geom] for geom in pair if geom in self._thing})

    def _first(self, pair: Pair) -> int:
        return self._sounding(pair)[0]

    def _tell(self) -> NDArray[np.float32]:
        slipping = float(self._slipped.max(initial=0.0))
        told = self._strikes[0].thing if self._strikes else int(self._slipped.argmax()) if slipping > 0 else None
        number = 0 if told is None else 1 + list(MATERIALS).index(list(self.things.values())[told].name)
        onset = self._strikes[0].at_s if self._strikes else NO_ONSET
        blow = max((strike.blow for strike in self._strikes), default=0.0)
        return np.array([len(self._strikes), onset, slipping, blow, number], dtype=np.float32)

    def _clear(self) -> None:
        self._begun = 0
        self._blows = np.zeros((len(self.things), self.samples))
        self._slipped = np.zeros(len(self.things))
        self._strikes: list[Strike] = []
        self._open: dict[Pair, Strike] = {}

    def _geoms(self, name: str) -> list[int]:
        body = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, name)
        geom = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_GEOM, name)
        if body < 0 and geom < 0:
            raise ValueError(f"the model has neither a body nor a geom called {name!r}")
        return [geom] if body < 0 else [g for g in range(self.model.ngeom) if self.model.geom_bodyid[g] == body]
