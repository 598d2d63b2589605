"""Several masked predictors behind one call: a hint selects one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from torch import Tensor, nn

from jepa_mpc.errors import choose


class ChosenPredictor(nn.Module):
    """Passes each call to the named predictor.

    Args:
        predictors: Masked predictors by name.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, predictors: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not predictors:
            raise ValueError("name at least one predictor")
        self.predictors = nn.ModuleDict(predictors)

    def forward(
        self,
        seen: Annotated[Tensor, "B K D"],
        seen_at: Annotated[Tensor, "B K"],
        wanted_at: Annotated[Tensor, "B L"],
        *,
        which: str,
        **hints: Any,
    ) -> Annotated[Tensor, "B L D"]:
        """Predict the tokens at `wanted_at` with the predictor `which`.

        Raises:
            UnknownName: If there is no such predictor.
        """
        return choose(dict(self.predictors.items()), which, "predictor")(seen, seen_at, wanted_at, **hints)
