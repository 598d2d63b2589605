"""The replay buffer, a ring of tensors per world: states, actions, proprioception and predictions.

Step t of a world lies in slot t mod capacity. Writing, overwriting a prediction by the observation, and dropping the
oldest step are therefore one operation with constant cost.

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
    """Stores the last `capacity` steps of each world, across its episodes; a `jepa_mpc.interfaces.Memory`.

    States and actions alternate: see, did, see, did, ...; `read` returns the planner's window, the last `window` states
    of the current episode, after `see`. Predictions (`expect`) lie in the slots of their time until the observation
    overwrites them; they are returned only on request.

    Args:
        capacity: Number of stored steps (C).
        action_dim: Width of an action (A).
        window: Number of latents returned by `read` (T).
        key: Computes the retrieval key of a state.
        dtype: Storage dtype of the latents (half precision halves the memory); by default that of the first ones.

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
        """Clear everything, or everything of some worlds (their indices)."""
        if worlds is None:
            self._store, self._saw_last = {}, False
            return
        store = self._kept()
        store["step"][worlds] = NEVER
        store["now"][worlds] = store["began"][worlds] = NEVER
        store["episode"][worlds] = 0

    def begin(self, worlds: Annotated[Tensor, "G"] | None = None, *, goal: State | None = None) -> None:
        """Begin a new episode: observations stay, predictions are dropped, and nothing spans the boundary.

        A goal with another shape than the stored states clears the memory.

        Args:
            worlds: Indices of the worlds; all of them by default.
            goal: The goal of the new episode `B N D`, for all worlds (only those that begin use it).
        """
        if goal is not None and self._store and goal.shape != self._store["latents"][:, 0].shape:
            self.clear()
        self.aim(worlds, goal=goal)
        if self._store:
            which = slice(None) if worlds is None else worlds
            self._store["began"][which] = self._store["now"][which]
            self._saw_last = self._saw_last and worlds is not None

    def aim(self, worlds: Annotated[Tensor, "G"] | None = None, *, goal: State | None = None) -> None:
        """Continue towards another goal: keeps the window, drops predictions; cost pairs do not span the change."""
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
        """Store the perceived state `B N D`, overwriting the prediction for this step.

        Raises:
            RuntimeError: If there was no action since the last state.
            ValueError: If a shape differs from the stored ones, or proprioception is given for some states only.
        """
        if self._saw_last:
            raise RuntimeError("two states without an action between them: call did(action) first, or begin()")
        self._check(latents, proprio)
        self._store["now"] += 1
        self._write(self.now, latents, proprio, predicted=0)
        self._saw_last = True

    def unsee(self) -> None:
        """Undo the last `see`, if no action followed; the prediction for that step is lost."""
        if self._saw_last:
            self._put("step", self.now, NEVER)
            self._store["now"] -= 1
            self._saw_last = False

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Store the executed action.

        Raises:
            RuntimeError: If there is no state before the action.
            ValueError: If the shape is not `B A`.
        """
        if not self._saw_last:
            raise RuntimeError("an action without a state before it: call see(latents) first")
        check_shape(action, "B A", B=len(self.now), A=self.action_dim)
        self._put("action", self.now, action)
        self._saw_last = False

    def judge(self, cost: Annotated[Tensor, "B"]) -> None:
        """Store the intrinsic cost of the last state."""
        self._put("cost", self.now, cost)

    def expect(self, latents: Annotated[Tensor, "B H N D"], costs: Annotated[Tensor, "B H"] | None = None) -> None:
        """Store predictions for the next H steps in their slots, replacing older ones.

        Raises:
            ValueError: If H is not below the capacity.
        """
        horizon = latents.shape[1]
        if horizon >= self.capacity:
            raise ValueError(f"{horizon} predicted steps do not fit in {self.capacity} slots beside the last state")
        for ahead in range(horizon):
            self._write(self.now + 1 + ahead, latents[:, ahead], None, predicted=ahead + 1)
            if costs is not None:
                self._put("cost", self.now + 1 + ahead, costs[:, ahead])

    def expected(self) -> tuple[State, Annotated[Tensor, "B"]]:
        """The prediction for the next step `B N D`, and the mask of worlds that have one `B` (bool)."""
        step = self.now + 1
        there = (self._get("step", step) == step) & self._get("predicted", step)
        return self._get("latents", step).to(self._given_dtype), there

    def overwrite(self, steps: Annotated[Tensor, "B"], latents: State, proprio: Tensor | None = None) -> None:
        """Replace the stored (or predicted) state of one step of each world by an observation."""
        self._check(latents, proprio)
        self._write(steps, latents, proprio, predicted=0)

    def read(self) -> Context:
        """The last states of this episode and the actions between them, oldest first.

        Raises:
            RuntimeError: If the last entry is not a state.
        """
        return self.recent(self.window)[0]

    def recent(self, count: int) -> tuple[Context, Annotated[Tensor, "B T"]]:
        """The last `count` states, or as many as the longest current episode has, and the mask of real ones.

        Younger episodes are padded with their first state and zero actions.

        Raises:
            RuntimeError: If the last entry is not a state.
        """
        if not self._saw_last:
            raise RuntimeError("there is no state since the last action: call see(latents) before read()")
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
        """The stored states with keys nearest to a query, per world.

        Args:
            query: Keys `B K` (see `key`).
            count: Number of states, at most the capacity.
            temperature: Temperature of the softmax weights of the retrieved states.
            predicted: Whether to include predictions.
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
        """Soft attention over all stored states: sum of softmax(q . k / temperature) z -> `B N D`; 0 if empty."""
        weights = (self._likeness(query, predicted=False) / temperature).softmax(dim=1).nan_to_num(0.0)
        return torch.einsum("bc,bcnd->bnd", weights, self._store["latents"].to(self._given_dtype))

    def novelty(self, query: Annotated[Tensor, "B K"]) -> Annotated[Tensor, "B"]:
        """Distance of a key to the nearest stored one `B`; infinite if nothing is stored."""
        gap = (self._kept()["key"].to(query) - query[:, None]).norm(dim=-1)
        return torch.where(self._present(predicted=False), gap, torch.inf).amin(dim=1)

    def pairs(self, delay: int, *, predicted: bool = False) -> DelayedPairs:
        """All states with the intrinsic cost `delay` steps later, for costs of observed states.

        Args:
            delay: d, from 1.
            predicted: Whether to include predicted states (with weight 1/2); costs are never predicted ones.
        """
        if delay < 1:
            raise ValueError(f"need delay >= 1, got {delay}")
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
        """All observations, as episodes grouped by world; None without an episode of two steps or more."""
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
        """Load the contents saved by a buffer of the same capacity and action width.

        Raises:
            BadCheckpoint: If the folder is damaged, or from another kind of buffer.
        """
        tensors, facts = load_checkpoint(folder)
        mine = (self.capacity, self.action_dim)
        if (facts.get("capacity"), facts.get("action_dim")) != mine or "latents" not in tensors:
            raise BadCheckpoint(f"{folder} was saved from another memory: this one has capacity and action_dim {mine}")
        self._store, self._saw_last = dict(tensors), bool(facts["saw_last"])
        self._given_dtype = getattr(torch, str(facts["latents"]))

    def _likeness(self, query: Annotated[Tensor, "B K"], *, predicted: bool) -> Annotated[Tensor, "B C"]:
        """Similarity q . k of each slot; -inf for empty slots."""
        store = self._kept()
        check_shape(query, "B K", B=len(self.now), K=store["key"].shape[2])
        return torch.where(self._present(predicted=predicted), (store["key"] @ query[:, :, None])[..., 0], -torch.inf)


@contextmanager
def seen(memory: Memory, latents: State, proprio: Annotated[Tensor, "B P"] | None) -> Iterator[Context]:
    """Store a state for the duration of a block and yield the context; an error removes the state."""
    memory.see(latents, proprio)
    try:
        yield memory.read()
    except BaseException:
        memory.unsee()
        raise
