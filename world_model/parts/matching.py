"""Slot matching: the cheapest one-to-one assignment between two sets of slots."""

from __future__ import annotations

from itertools import permutations
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

Order = Annotated[Tensor, "... N"]

FEW = 6
"""Maximum number of slots for trying all permutations (720): cheaper than the steps of a search."""

DEAR = 1e30


def gaps(first: Annotated[Tensor, "... N D"], second: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... N N"]:
    """Squared distance of every slot of `first` (rows) to every slot of `second` (columns), summed over the width."""
    return (first[..., :, None, :] - second[..., None, :, :]).square().sum(dim=-1)


@torch.no_grad()
def assign(costs: Annotated[Tensor, "... N N"]) -> Order:
    """The column of each row in the cheapest one-to-one assignment.

        argmin over permutations p of sum_i costs[i, p(i)]

    Exact for any size, for all matrices in parallel and without synchronising with the device: few slots by trying all
    permutations, more by the Hungarian method with shortest augmenting paths, in which every matrix takes the number of
    steps of the worst case. Non-finite costs count as very large.

    Args:
        costs: `(..., N, N)`.

    Raises:
        ValueError: If the matrices are not square.

    Reference: Kuhn 1955; Jonker and Volgenant 1987.
    """
    if costs.dim() < 2 or costs.shape[-1] != costs.shape[-2]:
        raise ValueError(f"an assignment needs square matrices (..., N, N), got {tuple(costs.shape)}")
    number = costs.shape[-1]
    table = torch.nan_to_num(costs.detach().double(), nan=DEAR, posinf=DEAR, neginf=-DEAR).reshape(-1, number, number)
    return (_try_all(table) if number <= FEW else _search(table)).view(costs.shape[:-1])


def reorder(nodes: Annotated[Tensor, "B T N D"], order: Annotated[Tensor, "B n"]) -> Annotated[Tensor, "B T N D"]:
    """Reorder the first n nodes of every frame; the others stay in place."""
    count = order.shape[1]
    where = order[:, None, :, None].expand(-1, nodes.shape[1], -1, nodes.shape[3])
    return torch.cat([nodes[:, :, :count].gather(2, where), nodes[:, :, count:]], dim=2)


def matched(first: Annotated[Tensor, "... N D"], second: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "..."]:
    """Distance of two sets of slots: mean squared difference over slots and width after the cheapest assignment.

    Differentiable in both; the assignment is constant.
    """
    each = gaps(*torch.broadcast_tensors(first, second))
    chosen = each.gather(-1, assign(each)[..., None]).squeeze(-1)
    return chosen.mean(dim=-1) / first.shape[-1]


def matching_loss(predicted: Annotated[Tensor, "B T N D"], target: Annotated[Tensor, "B T N D"]) -> Tensor:
    """Mean over worlds, times and slots of the squared distance after assignment, summed over the width."""
    return matched(predicted, target).mean() * predicted.shape[-1]


def _try_all(costs: Annotated[Tensor, "G N N"]) -> Annotated[Tensor, "G N"]:
    number = costs.shape[-1]
    orders = torch.tensor(list(permutations(range(number))), device=costs.device)  # (N!, N)
    chosen = functional.one_hot(orders, number).flatten(1).to(costs.dtype)  # (N!, N N)
    return orders[(costs.flatten(1) @ chosen.T).argmin(dim=1)]


def _search(costs: Annotated[Tensor, "G N N"]) -> Annotated[Tensor, "G N"]:
    paths = _Paths(costs)
    for row in range(costs.shape[-1]):
        paths.add(row)
    return paths.columns()


class _Paths:
    """Shortest augmenting paths for many matrices in parallel; column `number` stands for "no column yet"."""

    def __init__(self, costs: Annotated[Tensor, "G N N"]) -> None:
        self.costs, self.number = costs, costs.shape[-1]
        self.worlds = torch.arange(len(costs), device=costs.device)
        self.of_rows = costs.new_zeros(len(costs), self.number + 1)  # dual variable of each row (and column)
        self.of_columns = torch.zeros_like(self.of_rows)
        self.owner = torch.full_like(self.of_rows, self.number, dtype=torch.int64)  # row that has the column

    def add(self, row: int) -> None:
        """Assign a column to one more row, reassigning others where that is cheaper."""
        number, worlds = self.number, self.worlds
        self.owner[:, number] = row
        here = torch.full_like(worlds, number)  # column whose owner is being reassigned
        least = self.costs.new_full((len(worlds), number + 1), torch.inf)
        before = torch.full_like(self.owner, number)
        seen = torch.zeros_like(self.owner, dtype=torch.bool)
        for _ in range(row + 1):
            going = self.owner[worlds, here] < number  # a column without owner ends the path
            seen[worlds, here] |= going
            owner = self.owner[worlds, here].clamp(max=number - 1)
            reduced = self.costs[worlds, owner] - self.of_rows[worlds, owner, None] - self.of_columns[:, :number]
            better = going[:, None] & ~seen[:, :number] & (reduced < least[:, :number])
            least[:, :number] = torch.where(better, reduced, least[:, :number])
            before[:, :number] = torch.where(better, here[:, None], before[:, :number])
            step, nearest = least.masked_fill(seen, torch.inf)[:, :number].min(dim=1)
            step = torch.where(going, step, 0.0)
            paid = torch.where(seen & going[:, None], step[:, None], 0.0)
            self.of_rows.scatter_add_(1, self.owner, paid)
            self.of_columns -= paid
            least = torch.where(going[:, None] & ~seen, least - step[:, None], least)
            here = torch.where(going, nearest, here)
        self._move(here, before, row + 1)

    def _move(self, here: Tensor, before: Tensor, steps: int) -> None:
        """Reassign every column of a path to the owner of the previous column, from the end to the root."""
        worlds = self.worlds
        for _ in range(steps):
            earlier = before[worlds, here]
            at_root = here == self.number
            self.owner[worlds, here] = torch.where(at_root, self.owner[worlds, here], self.owner[worlds, earlier])
            here = torch.where(at_root, here, earlier)

    def columns(self) -> Annotated[Tensor, "G N"]:
        """The column of each row."""
        return self.owner[:, : self.number].argsort(dim=1)
