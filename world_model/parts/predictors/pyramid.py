"""Masked prediction over the levels of a token pyramid."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.positions import Angles
from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, Places, TablePlaces

Fusion = Literal["add", "concat"]


class LevelPlaces(TablePlaces):
    """A fixed vector for each cell of a pyramid, the mean over its tokens, and a learned one for each level.

    Args:
        pyramid: The levels.
        table: Positional embeddings of the tokens of the finest level `(h w, width)`.
    """

    level: Tensor

    def __init__(self, pyramid: TokenPyramid, table: Tensor) -> None:
        super().__init__(pyramid(table[None])[0])
        self.marks = nn.Parameter(torch.empty(len(pyramid.grids), table.shape[1]))
        self.register_buffer("level", pyramid.level_of(), persistent=False)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the level embeddings from a normal distribution with std 0.02."""
        nn.init.normal_(self.marks, std=0.02, generator=generator)

    def forward(self, x: Tensor, at: Places) -> tuple[Tensor, Angles | None]:
        """Tokens `(B, L, width)` with position and level embeddings of `at` `(B, L)` added."""
        return super().forward(x + self.marks[self.level[at]], at)


class TopDownPredictor(nn.Module):
    """A feature pyramid over a masked predictor's outputs: the prediction of a cell is joined with that of its parent.

        p_l = lateral_l(g(seen, cell_l));    f_top = p_top;    answer = out_l(f_l)
        f_l = p_l + down_l(f_l+1)    or    fuse_l([p_l, down_l(f_l+1)])

    where cell_l+1 is the cell of the next coarser level in which cell_l lies.

    Args:
        predictor: Predicts single cells of any level.
        pyramid: The levels.
        width: Width of the features.
        fusion: "add" or "concat".

    Raises:
        ValueError: If the fusion is unknown.

    Reference: Lin et al. 2017, arXiv:1612.03144.
    """

    def __init__(
        self, predictor: MaskedPredictor, pyramid: TokenPyramid, *, width: int, fusion: Fusion = "add"
    ) -> None:
        super().__init__()
        if fusion not in ("add", "concat"):
            raise ValueError(f"fusion must be 'add' or 'concat', got {fusion!r}")
        outputs, levels = predictor.sizes.outputs, len(pyramid.grids)
        self.predictor, self.pyramid, self.fusion = predictor, pyramid, fusion
        self.lateral = _layers(outputs, width, levels)
        self.down = _layers(width, width, levels - 1)
        self.fuse = _layers(2 * width, width, levels - 1 if fusion == "concat" else 0)
        self.out = nn.ModuleList(nn.Linear(width, outputs) for _ in range(levels))

    def forward(self, seen: Tensor, seen_at: Places, wanted_at: Places, *, level: int) -> Tensor:
        """Predict the cells `wanted_at` `(B, L)`, all of one level: `(B, L, outputs)`."""
        chain = [wanted_at]
        for _ in range(level + 1, len(self.lateral)):
            chain.append(self.pyramid.parents[chain[-1]])
        answers = self.predictor(seen, seen_at, torch.cat(chain, dim=1)).split(wanted_at.shape[1], dim=1)
        found = self.lateral[-1](answers[-1])
        for index in range(len(self.lateral) - 2, level - 1, -1):
            own, above = self.lateral[index](answers[index - level]), self.down[index](found)
            found = own + above if self.fusion == "add" else self.fuse[index](torch.cat([own, above], dim=-1)).relu()
        return self.out[level](found)


def _layers(inputs: int, outputs: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs)) for _ in range(count))
