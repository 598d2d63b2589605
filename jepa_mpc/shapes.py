"""Tensor shape checks by axis letters."""

from __future__ import annotations

from torch import Tensor


def check_shape(x: Tensor, axes: str, **known: int) -> dict[str, int]:
    """Compare a tensor's shape with a string of axis letters and return the sizes.

    Args:
        x: The tensor to check.
        axes: One letter per axis, e.g. `"B S H A"`; a repeated letter must have one size.
        **known: Required sizes, e.g. `B=4`.

    Returns:
        The size of each letter.

    Raises:
        ValueError: If the number of axes or a size differs from what was expected.
    """
    letters = axes.split()
    sizes = dict(known)
    fits = x.dim() == len(letters)
    if fits:
        for letter, size in zip(letters, x.shape, strict=True):
            fits = fits and sizes.setdefault(letter, size) == size
    if not fits:
        wanted = ", ".join(f"{letter}={known[letter]}" if letter in known else letter for letter in letters)
        raise ValueError(f"expected a tensor of shape ({wanted}), got {tuple(x.shape)}")
    return {letter: sizes[letter] for letter in letters}
