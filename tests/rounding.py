"""How far two orders of the same sums may lie apart.

Another batch shape, another number of threads or a processor with other vector instructions adds the terms of a matrix
product in another order. Each of n terms is rounded to eps, in a direction as good as random, so that a product is off
by about sqrt(n) eps, and products that follow one another add up:

    slack = products * sqrt(terms) * eps          for values of about one
"""

from __future__ import annotations

import math

import torch


def rounding(*, products: int, terms: int, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Tolerances for `torch.testing.assert_close` and `torch.allclose`.

    Args:
        products: Matrix products (or sums as long) that follow one another.
        terms: Terms of the longest of them.
        dtype: Of the numbers.
    """
    slack = products * math.sqrt(terms) * torch.finfo(dtype).eps
    return {"atol": slack, "rtol": slack}
