"""Interventions on objects: counterfactual predictions, and the influence of objects on each other.

Removing or changing an object is a query under another set of observations. The results show predictive dependence over
time; they do not prove causation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor

from jepa_mpc.types import Latents
from jepa_mpc.world_model.dynamics.learned import evaluating
from jepa_mpc.world_model.parts.predictors.slots import SlotPredictor

Place = tuple[int, int]
Change = Tensor | Literal["remove"]
Do = Mapping[Place, Change]
Intervention = Callable[[SlotPredictor, Latents, int], Do]
Influence = Annotated[Tensor, "B N N"]


@torch.no_grad()
def counterfactual(predictor: SlotPredictor, nodes: Latents, do: Do) -> Latents:
    """Predict the next frames again after some nodes were replaced or removed.

    Args:
        predictor: The predictor.
        nodes: Observed nodes `(B, T, N, D)`, T at most the predictor's history.
        do: (time, node) -> a new value `(D)` or `(B, D)`, or "remove": no other node attends to it. Future times, from
            T on, can only be removed. See `without` for removing a whole object.

    Returns:
        `(B, future, N, D)`; values at removed nodes are meaningless.

    Raises:
        ValueError: If a node does not exist, a future node is given a value, or the change is unknown.
    """
    batch, known, count, _ = nodes.shape
    total = known + predictor.sizes.future
    changed, gone = nodes.clone(), torch.zeros(batch, total, count, dtype=torch.bool, device=nodes.device)
    for (time, node), change in do.items():
        if not (0 <= time < total and 0 <= node < count):
            raise ValueError(f"there is no node {node} at time {time}: {count} nodes, times 0 to {total - 1}")
        if isinstance(change, Tensor) and time < known:
            changed[:, time, node] = change.to(nodes.dtype)
        elif isinstance(change, str) and change == "remove":
            gone[:, time, node] = True
        else:
            raise ValueError(
                f"a node is changed by a tensor (times before {known}) or by 'remove', got {change!r} at time {time}"
            )
    with evaluating(predictor):
        return predictor(changed, gone=gone if bool(gone.any()) else None)[:, known:]


def without(predictor: SlotPredictor, nodes: Latents, node: int) -> Do:
    """The changes that remove one object at all times, including the future."""
    return {(time, node): "remove" for time in range(nodes.shape[1] + predictor.sizes.future)}


def moved(offset: Annotated[Tensor, "D"]) -> Intervention:
    """The intervention that adds an offset to one object at all observed times."""
    return lambda predictor, nodes, node: {
        (time, node): nodes[:, time, node] + offset for time in range(nodes.shape[1])
    }


@torch.no_grad()
def influence(
    predictor: SlotPredictor, nodes: Latents, *, by: Intervention = without, objects: int | None = None
) -> Influence:
    """Change of each object's predicted future when another object is removed or changed.

        I[i, j] = mean over frames and width of |p_j after the change of i - p_j|^2;   I[i, i] = 0

    A predictor trained only with all objects present may respond to a removal with noise; `moved` stays within its
    training distribution.

    Args:
        predictor: The predictor.
        nodes: Observed nodes `(B, T, N, D)`.
        by: The intervention: `without` removes an object, `moved(offset)` moves it.
        objects: Number of nodes to include, from the first; by default all.

    Returns:
        `(B, n, n)`: row i was changed, column j responded.
    """
    count = nodes.shape[2] if objects is None else objects
    before = counterfactual(predictor, nodes, {})[:, :, :count]
    rows = []
    for node in range(count):
        after = counterfactual(predictor, nodes, by(predictor, nodes, node))[:, :, :count]
        row = (after - before).square().mean(dim=(1, 3))  # (B, n)
        row[:, node] = 0.0
        rows.append(row)
    return torch.stack(rows, dim=1)


@torch.no_grad()
def attention_influence(
    predictor: SlotPredictor, nodes: Latents, *, layer: int = -1, objects: int | None = None
) -> Influence:
    """Attention of each object's future on another object, over all times of the latter.

    Args:
        predictor: The predictor.
        nodes: Observed nodes `(B, T, N, D)`.
        layer: Block whose attention is read.
        objects: Number of nodes to include, from the first; by default all.

    Returns:
        `(B, n, n)`: column j attends to row i.
    """
    count = nodes.shape[2] if objects is None else objects
    with evaluating(predictor):
        shares = predictor.attention_probe(nodes, layer=layer)[:, nodes.shape[1] :]  # (B, future, N, T, N)
    return shares.sum(dim=3).mean(dim=1)[:, :count, :count].transpose(1, 2)


def edge_recovery(matrix: Influence, edges: Influence) -> Annotated[Tensor, ""]:
    """How well an influence matrix detects interacting objects: area under the ROC curve over all pairs i != j.

    Args:
        matrix: Influence `(B, n, n)`.
        edges: True where object i acted on object j (a contact log), `(B, n, n)`.

    Returns:
        Probability that a true edge scores above a non-edge, ties counting half.

    Raises:
        ValueError: If there are no edges, or only edges.
    """
    off = ~torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device).expand_as(matrix)
    scores, truth = matrix[off], edges[off].bool()
    found, others = scores[truth], scores[~truth]
    if not len(found) or not len(others):
        raise ValueError(f"an area under the curve needs edges and pairs without, got {len(found)} and {len(others)}")
    gap = found[:, None] - others[None, :]
    return ((gap > 0).double() + 0.5 * (gap == 0).double()).mean()
