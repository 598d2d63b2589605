"""The replay buffer, a ring of tensors: what was seen, done, felt and expected, for each world by itself.

Step t of a world lies in slot t mod capacity, so that writing, overwriting a prediction by what was then seen, and
forgetting the oldest are one and the same thing, and cost the same at every step.

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.1.2 (key-value short-term memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.interfaces import Memory
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, State
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.memory.storage import NEVER, DelayedPairs, Key, Retrieved, Slots, pooled_key


class ReplayBuffer(Slots):
    """Remembers the last `capacity` steps of each world, across its episodes; a `jepa_mpc.interfaces.Memory`.

    Seeing and doing alternate: see, did, see, did, ...; `read` gives the planner's window, the last `window` states of
    the present episode, after seeing. Predictions (`expect`) lie in the slots of their time until something is seen
    there; nothing returns them unless it is asked for.

    Args:
        capacity: Steps that are kept (C).
        action_dim: Numbers per action (A).
        window: Latents that `read` gives (T).
        key: What states are found again by.
        dtype: Type in which latents are kept (half precision halves the memory); that of the first ones by default.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        capacity: int = 1024,
        action_dim: int,
        window: int = 1,
        key: Key = pooled_key,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not 1 <= window <= capacity or action_dim < 0:
            raise ValueError(
                f"need 1 <= window <= capacity and action_dim >= 0, got {window}, {capacity} and {action_dim}"
            )
        super().__init__(capacity=capacity, action_dim=action_dim, key=key, dtype=dtype)
        self.window = window
        self._saw_last = False

    def clear(self, worlds: Annotated[Tensor, "G"] | None = None) -> None:
        """Forget everything, or everything of some worlds (their indices)."""
        if worlds is None:
            self._store, self._saw_last = {}, False
            return
        store = self._kept()
        store["step"][worlds] = NEVER
        store["now"][worlds] = store["began"][worlds] = NEVER
        store["episode"][worlds] = 0

    def begin(self, worlds: Annotated[Tensor, "G"] | None = None, *, goal: State | None = None) -> None:
        """Begin a new episode: what was seen stays, what was expected goes, and nothing reaches across the border.

        A goal of another shape than the states that are remembered empties the memory: those are of another kind.

        Args:
            worlds: Indices of the worlds; all of them by default.
            goal: The goal of the new episode `B N D`, of all worlds (only those that begin take it).
        """
        if goal is not None and self._store and goal.shape != self._store["latents"][:, 0].shape:
            self.clear()
        self.aim(worlds, goal=goal)
        if self._store:
            which = slice(None) if worlds is None else worlds
            self._store["began"][which] = self._store["now"][which]
            self._saw_last = self._saw_last and worlds is not None

    def aim(self, worlds: Annotated[Tensor, "G"] | None = None, *, goal: State | None = None) -> None:
        """Go on towards another goal: the window stays, what was expected goes, and no costs are paired across it."""
        if goal is not None and worlds is None:
            self._first_goal = goal
        if not self._store:
            return
        store, which = self._store, slice(None) if worlds is None else worlds
        store["step"][which] = torch.where(store["predicted"][which], NEVER, store["step"][which])
        store["present_episode"][which] += 1
        if goal is not None:
            store["present_goal"][which] = goal[which].to(store["present_goal"].dtype)

    def see(self, latents: State, proprio: Annotated[Tensor, "B P"] | None = None) -> None:
        """Write what was just perceived `B N D` over whatever had been expected for this step.

        Raises:
            RuntimeError: If nothing was done since the last state.
            ValueError: If a shape differs from what is remembered, or proprioception comes sometimes.
        """
        if self._saw_last:
            raise RuntimeError("two states without an action between them: call did(action) first, or begin()")
        self._check(latents, proprio)
        self._store["now"] += 1
        self._write(self.now, latents, proprio, predicted=0)
        self._saw_last = True

    def unsee(self) -> None:
        """Take the last `see` back, if nothing was done since; what had been expected for that step is lost."""
        if self._saw_last:
            self._put("step", self.now, NEVER)
            self._store["now"] -= 1
            self._saw_last = False

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Write what was just done.

        Raises:
            RuntimeError: If nothing was seen before the action.
            ValueError: If the shape is not `B A`.
        """
        if not self._saw_last:
            raise RuntimeError("an action without a state before it: call see(latents) first")
        check_shape(action, "B A", B=len(self.now), A=self.action_dim)
        self._put("action", self.now, action)
        self._saw_last = False

    def judge(self, cost: Annotated[Tensor, "B"]) -> None:
        """Write the intrinsic cost of the state that was seen last."""
        self._put("cost", self.now, cost)

    def expect(self, latents: Annotated[Tensor, "B H N D"], costs: Annotated[Tensor, "B H"] | None = None) -> None:
        """Write predictions for the next H steps into their slots; older predictions for these steps go.

        Raises:
            ValueError: If H is not below the capacity.
        """
        horizon = latents.shape[1]
        if horizon >= self.capacity:
            raise ValueError(f"{horizon} predicted steps do not fit beside what was seen in {self.capacity} slots")
        for ahead in range(horizon):
            self._write(self.now + 1 + ahead, latents[:, ahead], None, predicted=ahead + 1)
            if costs is not None:
                self._put("cost", self.now + 1 + ahead, costs[:, ahead])

    def expected(self) -> tuple[State, Annotated[Tensor, "B"]]:
        """What was predicted for the step that comes next `B N D`, and whether anything was `B` (bool)."""
        step = self.now + 1
        there = (self._get("step", step) == step) & self._get("predicted", step)
        return self._get("latents", step).to(self._given_dtype), there

    def overwrite(self, steps: Annotated[Tensor, "B"], latents: State, proprio: Tensor | None = None) -> None:
        """Put an observation in the place of what is kept (or was expected) for one step of each world."""
        self._check(latents, proprio)
        self._write(steps, latents, proprio, predicted=0)

    def read(self) -> Context:
        """The last states of this episode and the actions between them, oldest first.

        Raises:
            RuntimeError: If the last entry is not a state.
        """
        return self.recent(self.window)[0]

    def recent(self, count: int) -> tuple[Context, Annotated[Tensor, "B T"]]:
        """The last `count` states, or as many as the longest of the present episodes has, and which of them are real.

        A world whose episode is younger is filled up with its first state and actions of zero.

        Raises:
            RuntimeError: If the last entry is not a state.
        """
        if not self._saw_last:
            raise RuntimeError("nothing was seen since the last action: call see(latents) before read()")
        store = self._store
        have = self.now - store["began"]  # steps of the present episode
        length = min(count, int(have.max()))
        wanted = self.now[:, None] - torch.arange(length - 1, -1, -1, device=self.now.device)  # (B, T)
        first = (store["began"] + 1)[:, None]
        steps = torch.maximum(wanted, first)
        real = (wanted >= first) & (self._get("step", steps) == steps)
        latents = self._get("latents", steps).to(self._given_dtype)
        actions = torch.where(real[:, :-1, None], self._get("action", steps[:, :-1]), 0.0)
        proprio = self._get("proprio", steps) if "proprio" in store else None
        return Context(latents=latents, actions=actions, proprio=proprio), real

    def retrieve(
        self, query: Annotated[Tensor, "B K"], *, count: int, temperature: float = 0.1, predicted: bool = False
    ) -> Retrieved:
        """The remembered states whose keys are nearest to a query, of each world by itself.

        Args:
            query: Keys `B K` (see `key`).
            count: How many, at most the capacity.
            temperature: Of the soft weights among those found.
            predicted: Whether predictions may be found as well.
        """
        store, likeness = self._store, self._likeness(query, predicted=predicted)
        found, slots = likeness.topk(min(count, self.capacity), dim=1)
        there = found > -torch.inf
        weights = torch.where(there, (found / temperature).softmax(dim=1).nan_to_num(0.0), 0.0)
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        return Retrieved(
            latents=store["latents"][rows, slots].to(self._given_dtype),
            weights=weights,
            steps=torch.where(there, store["step"][rows, slots], NEVER),
            costs=store["cost"][rows, slots],
            actions=store["action"][rows, slots],
        )

    def recall(self, query: Annotated[Tensor, "B K"], *, temperature: float = 0.1) -> State:
        """Soft attention over all that was seen: sum of softmax(q . k / temperature) z -> `B N D`; 0 if nothing was."""
        weights = (self._likeness(query, predicted=False) / temperature).softmax(dim=1).nan_to_num(0.0)
        return torch.einsum("bc,bcnd->bnd", weights, self._store["latents"].to(self._given_dtype))

    def novelty(self, query: Annotated[Tensor, "B K"]) -> Annotated[Tensor, "B"]:
        """Distance of a key from the nearest remembered one `B`; infinite if nothing is remembered."""
        gap = (self._kept()["key"].to(query) - query[:, None]).norm(dim=-1)
        return torch.where(self._present(predicted=False), gap, torch.inf).amin(dim=1)

    def pairs(self, delay: int, *, predicted: bool = False) -> DelayedPairs:
        """All states with the intrinsic cost `delay` steps later, that of a state which was really seen.

        Args:
            delay: d, from 1.
            predicted: Whether predicted states count too (with weight 1/2); the costs never are predicted ones.
        """
        if delay < 1:
            raise ValueError(f"a delay is a number of steps from 1, got {delay}")
        store, there = self._kept(), self._present(predicted=predicted)
        later = store["step"] + delay
        slots, rows = later % self.capacity, torch.arange(len(later), device=later.device)[:, None]
        seen = (store["step"][rows, slots] == later) & ~store["predicted"][rows, slots]
        same = store["episode"][rows, slots] == store["episode"]
        costs = store["cost"][rows, slots]
        good = there & seen & same & costs.isfinite()
        return DelayedPairs(
            latents=store["latents"][good].to(self._given_dtype),
            proprio=store["proprio"][good] if "proprio" in store else None,
            goals=store["goal"][good].to(self._given_dtype),
            costs=costs[good],
            weights=torch.where(store["predicted"][good], 0.5, 1.0),
        )

    def log(self) -> LatentLog | None:
        """All that was seen, as episodes of which each world is a place; None without one of two steps or more."""
        store, there = self._kept(), self._present(predicted=False)
        worlds, slots = there.nonzero(as_tuple=True)
        step, episode = store["step"][worlds, slots], store["episode"][worlds, slots]
        order = torch.argsort(worlds * (2**40) + step)  # by world, then by time
        worlds, slots, step, episode = worlds[order], slots[order], step[order], episode[order]
        border = torch.ones_like(worlds, dtype=torch.bool)
        border[1:] = (worlds[1:] != worlds[:-1]) | (episode[1:] != episode[:-1]) | (step[1:] != step[:-1] + 1)
        part = border.cumsum(0) - 1
        lengths = torch.bincount(part)
        keep = (lengths >= 2)[part]
        lengths = lengths[lengths >= 2]
        if not len(lengths):
            return None
        worlds, slots = worlds[keep], slots[keep]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return LatentLog(
            latents=store["latents"][worlds, slots].to(self._given_dtype),
            actions=store["action"][worlds, slots],
            offsets=offsets,
            groups=worlds[offsets[:-1]],
        )

    def save(self, folder: str | Path) -> None:
        """Publish the contents as a folder of tensors."""
        facts = {
            "capacity": self.capacity,
            "action_dim": self.action_dim,
            "saw_last": self._saw_last,
            "latents": str(self._given_dtype).removeprefix("torch."),
        }
        save_checkpoint(folder, self._kept(), facts)

    def load(self, folder: str | Path) -> None:
        """Take over what was saved from a memory of the same capacity and actions.

        Raises:
            BadCheckpoint: If the folder is damaged, or from another kind of memory.
        """
        tensors, facts = load_checkpoint(folder)
        mine = (self.capacity, self.action_dim)
        if (facts.get("capacity"), facts.get("action_dim")) != mine or "latents" not in tensors:
            raise BadCheckpoint(f"{folder} was saved from another memory: this one has capacity and action_dim {mine}")
        self._store, self._saw_last = dict(tensors), bool(facts["saw_last"])
        self._given_dtype = getattr(torch, str(facts["latents"]))

    def _likeness(self, query: Annotated[Tensor, "B K"], *, predicted: bool) -> Annotated[Tensor, "B C"]:
        """Likeness q . k of each slot; -inf where nothing is."""
        store = self._kept()
        check_shape(query, "B K", B=len(self.now), K=store["key"].shape[2])
        return torch.where(self._present(predicted=predicted), (store["key"] @ query[:, :, None])[..., 0], -torch.inf)


@contextmanager
def seen(memory: Memory, latents: State, proprio: Annotated[Tensor, "B P"] | None) -> Iterator[Context]:
    """Remember a state for the length of a block and give what is known then; an error in it takes the state back."""
    memory.see(latents, proprio)
    try:
        yield memory.read()
    except BaseException:
        memory.unsee()
        raise
