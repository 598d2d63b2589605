"""The views of a window: frames for the dense branch, for the thinker, and for prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClipViews:
    """A window split in time: a dense view, a sparse one with larger steps, and the future.

    Args:
        dense: Indices of the predictor's input frames, consecutive up to the last observed one.
        sparse: Indices of the thinker's frames, ascending.
        future: Indices of the predicted frames, consecutive after the observed ones.

    Raises:
        ValueError: If a view is empty or not in order, or an observed frame lies in the future.
    """

    dense: tuple[int, ...]
    sparse: tuple[int, ...]
    future: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, rises in (("dense", _follow), ("sparse", _rise), ("future", _follow)):
            view = getattr(self, name)
            if not view or view[0] < 0 or not rises(view):
                raise ValueError(f"the {name} view must hold rising frame numbers from 0, got {view}")
        if max(*self.dense, *self.sparse) >= self.future[0]:
            raise ValueError(
                f"observed and future frames must not overlap: dense {self.dense} and sparse {self.sparse} must end "
                f"before frame {self.future[0]}"
            )

    @property
    def length(self) -> int:
        """Frames of the window T."""
        return self.future[-1] + 1

    @property
    def last_observed(self) -> int:
        """Index of the last frame before the future."""
        return self.future[0] - 1


def cut(*, observed: int, future: int, dense: int, sparse: int) -> ClipViews:
    """Views of a window of `observed + future` frames, of which the thinker sees a longer time span.

    Args:
        observed: Number of observed frames.
        future: Number of future frames.
        dense: Number of last observed frames for the predictor.
        sparse: Number of frames for the thinker, evenly spaced from the first to the last observed one.

    Raises:
        ValueError: If the numbers are inconsistent, or the dense view spans as much time as the sparse one.
    """
    if not (1 <= dense < observed and 2 <= sparse <= observed and future >= 1):
        raise ValueError(
            "need 1 <= dense < observed (the thinker looks further back), 2 <= sparse <= observed and future >= 1, "
            f"got dense={dense}, sparse={sparse}, observed={observed}, future={future}"
        )
    spread = tuple(round(index * (observed - 1) / (sparse - 1)) for index in range(sparse))
    last = range(observed - dense, observed)
    return ClipViews(dense=tuple(last), sparse=spread, future=tuple(range(observed, observed + future)))


def _follow(view: tuple[int, ...]) -> bool:
    return view == tuple(range(view[0], view[0] + len(view)))


def _rise(view: tuple[int, ...]) -> bool:
    return all(early < late for early, late in zip(view, view[1:], strict=False))
