"""An object predictor with the rolling interface: slots, an optional proprioception node, an action node.

A state has `N` tokens: the object slots, then the proprioception node if there is one. The action after a frame is one
more node of that frame, internal to the predictor.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Actions, Imagined, Latents, Plans
from jepa_mpc.world_model.parts.matching import assign, gaps, reorder
from jepa_mpc.world_model.parts.predictors.slots import SlotPredictor
from jepa_mpc.world_model.parts.predictors.unrolling import share


class NumbersNode(nn.Module):
    """A vector of each frame as one node: standardised, unknown entries set to zero, then one linear map.

    Args:
        inputs: Width of the vector.
        width: Width D of the node.
        scaling: Standardises the vector first; by default it is already standardised.
    """

    def __init__(self, inputs: int, *, width: int, scaling: nn.Module | None = None) -> None:
        super().__init__()
        self.inputs = inputs
        self.scaling = scaling or nn.Identity()
        self.map = nn.Linear(inputs, width)

    def forward(self, numbers: Annotated[Tensor, "... A"]) -> Annotated[Tensor, "... D"]:
        """Embed `(..., inputs)`.

        Raises:
            ValueError: If the width differs.
        """
        if numbers.shape[-1] != self.inputs:
            raise ValueError(f"this node takes {self.inputs} numbers, got {numbers.shape[-1]}")
        return self.map(torch.nan_to_num(self.scaling(numbers).to(self.map.weight.dtype), nan=0.0))


class ObjectWorld(nn.Module):
    """Rolls out a slot predictor under actions.

    Each round predicts from the last frames, keeps the next frame, aligns its objects with the previous frame (one
    assignment per round), and overwrites the predicted action by the planned one.

    Args:
        slots: The predictor over nodes.
        action: Embeds actions; None for a world without actions.
        felt: Embeds proprioception as a node of the state, or None.
        per_round: Predicted frames kept per round; more than one is faster, but only the first of them uses the true
            action.

    Raises:
        ValueError: If `per_round` exceeds the number of predicted frames.
    """

    proprio: None = None  # it is part of the state

    def __init__(
        self,
        slots: SlotPredictor,
        *,
        action: NumbersNode | None = None,
        felt: NumbersNode | None = None,
        per_round: int = 1,
    ) -> None:
        super().__init__()
        if not 1 <= per_round <= slots.sizes.future:
            raise ValueError(f"a round predicts {slots.sizes.future} frames and can keep no {per_round} of them")
        self.slots, self.action, self.felt = slots, action, felt
        self.per_round = per_round

    @property
    def window(self) -> int:
        """Number of context frames of one prediction."""
        return self.slots.sizes.history

    @property
    def num_extra(self) -> int:
        """Number of trailing tokens of a state that are not objects."""
        return 0 if self.felt is None else 1

    def states(self, slots: Latents, proprio: Annotated[Tensor, "B T P"] | None = None) -> Latents:
        """Concatenate slots `(B, T, n, D)` and proprioception to the tokens of a state `(B, T, N, D)`.

        Raises:
            ValueError: If proprioception is needed and missing.
        """
        if self.felt is None:
            return slots
        if proprio is None:
            raise ValueError(f"this world has a node of proprioception: give its {self.felt.inputs} numbers per frame")
        sizes = check_shape(slots, "B T N D")
        check_shape(proprio, "B T P", B=sizes["B"], T=sizes["T"])
        return torch.cat([slots, self.felt(proprio)[:, :, None]], dim=2)

    def nodes(self, states: Latents, actions: Actions) -> Latents:
        """States and the actions after them, one node each: `(B, T, N + 1, D)`; without actions, the states."""
        return states if self.action is None else torch.cat([states, self.action(actions)[:, :, None]], dim=2)

    def forward(self, latents: Latents, actions: Actions, proprio: Tensor | None = None) -> Latents:
        """T states and the T actions after them in, the T next states out."""
        return self.predict(latents, actions, proprio)[0]

    def predict(self, latents: Latents, actions: Actions, proprio: Tensor | None = None) -> tuple[Latents, None]:
        """The state after each frame, from that frame and earlier ones; slots in the order of that frame."""
        nodes = self.nodes(latents, actions)
        count, after = latents.shape[2], []
        for time in range(latents.shape[1]):
            known = nodes[:, max(0, time + 1 - self.window) : time + 1]
            after.append(self._ahead(known, objects=count - self.num_extra)[:, 0, :count])
        return torch.stack(after, dim=1), None

    def rollout(
        self,
        latents: Latents,
        actions: Annotated[Tensor, "B T-1 A"],
        plans: Plans,
        proprio: Tensor | None = None,
    ) -> tuple[Imagined, None]:
        """States `B S H N D` of each plan."""
        candidates, (times, count) = plans.shape[1], latents.shape[1:3]
        acted = torch.cat([share(actions, candidates), plans.flatten(0, 1)], dim=1)  # (B S, T - 1 + H, A)
        nodes = self.imagine(share(latents, candidates), acted)
        return nodes[:, times:, :count].unflatten(0, plans.shape[:2]), None

    def imagine(self, states: Latents, actions: Actions) -> Latents:
        """All nodes of known and predicted frames.

        Args:
            states: Known states `(G, T, N, D)`.
            actions: `(G, n, A)`, n >= T: the action after each known state, then the following ones.

        Returns:
            `(G, n + 1, N, D)`, or N + 1 with an action node; that of the last frame is the predicted one.

        Raises:
            ValueError: If there are fewer actions than known states.
        """
        known, total = states.shape[1], actions.shape[1] + 1
        if total <= known:
            raise ValueError(f"{known} known states need at least as many actions, got {total - 1}")
        embedded = None if self.action is None else self.action(actions)  # (G, n, D)
        nodes = self.nodes(states, actions[:, :known])
        objects = states.shape[2] - self.num_extra
        while nodes.shape[1] < total:
            now = nodes.shape[1]
            ahead = self._ahead(nodes, objects=objects)[:, : min(self.per_round, total - now)]
            nodes = torch.cat([nodes, ahead if embedded is None else _acted(ahead, embedded[:, now:])], dim=1)
        return nodes

    def _ahead(self, nodes: Latents, *, objects: int) -> Latents:
        """The next frames, with objects aligned to the last known frame."""
        ahead = self.slots.ahead(nodes)
        return reorder(ahead, assign(gaps(nodes[:, -1, :objects], ahead[:, 0, :objects])))

    def bytes_per_candidate(self, num_tokens: int, horizon: int) -> int:
        """Approximate memory in bytes of one candidate of one world."""
        sizes, nodes = self.slots.sizes, num_tokens + 1
        frames = self.window + sizes.future
        numbers = nodes * (frames * (5 * sizes.width + sizes.mlp_dim) + horizon * sizes.width)
        return numbers * self.slots.times.element_size()


def _acted(ahead: Latents, planned: Annotated[Tensor, "B T D"]) -> Latents:
    """Overwrite the predicted actions (the last node of each frame) by the planned ones, where there are any."""
    count = min(ahead.shape[1], planned.shape[1])
    nodes = torch.cat([planned[:, :count], ahead[:, count:, -1]], dim=1)
    return torch.cat([ahead[:, :, :-1], nodes[:, :, None]], dim=2)
